"""What a model says around its answer in plain words: thinking aloud, labels, courtesies, and the answer once more."""

# ruff: noqa: E501 - the tables of what models say read better in long lines, and in their own signs

from __future__ import annotations

import re

_MEDIA = (
    r"(?:image|picture|photo(?:graph)?|screenshot|illustration|chart|video|clip|recording|audio|caption|alt[- ]?text"
    r"|description|json|scene|summary|transcript|request|task|prompt|question|instructions?)"
)
_DOING = (
    r"(?:caption|describe|write|produce|output|generate|create|provide|craft|answer|respond|return|analy[sz]e|look|identify"
    r"|figure out|examine|mention|include|focus|give|start|think|consider|check|break (?:this|it) down|see what|be careful"
    r"|make sure|follow|keep|avoid|tackle|transcribe|listen|list|extract|determine)"
)
_WANTS = (
    r"(?:wants?|asks?|asked|is asking|requests?|requested|needs?|would like|has (?:asked|provided|given|uploaded|sent)"
    r"|provided|gave|uploaded|shared|sent)"
)
_BEGINS = (
    r"(?:(?:okay|ok|alright|all right|hm+|well|so|right|got it|wait|now|first(?:ly)?|let's see|oh|yes|sure|also|again|but)"
    r"[\s,.!:…-]++){0,4}"
)
# Each says, at the beginning of a text, what somebody is about to do or was asked for, and not what is seen. The signs
# before it match possessively (`*+`): otherwise each shorter run of 20,000 tabs was tried again, for seconds.
_ALOUD = re.compile(
    rf"^\W*+{_BEGINS}(?:"
    rf"the user {_WANTS}\b[^.!?]{{0,60}}\b(?:me|a|an|to|this|that|the)\b[^.!?]{{0,60}}\b(?:{_MEDIA}|describ\w+)\b"
    rf"|(?:i|we)(?:'ll| will| need to| have to| should| must| am going to|'m going to| can| want to)(?: now| first| just)? "
    rf"{_DOING}\b"
    r"|(?:i(?:'m| am)|we(?:'re| are)) (?:being )?(?:asked|supposed|tasked|given)\b"
    rf"|let(?:'s| us| me)(?: now| first| try to)? {_DOING}\b"
    rf"|(?:my|the) (?:task|job|goal) (?:is|here is) to\b|(?:looking|based) (?:at|on) the (?:user's )?(?:request|instructions|prompt)\b"
    r"|(?:thinking|thoughts?|reasoning|analysis)(?: process)?[^\S\n]{0,9}(?:[^\w\s\"'(]{1,12}[^\S\n]{0,9})?\n"
    r"|(?:thought|reasoned|thinking|reasoning) for (?:\d|an? |some |several )|(?<![\"“'‘«„])hm+[\s,.…!?]"
    r"|(?:step )?(?:1|one)[.:)]\W{0,9}(?:(?:first|i)\W{1,3})?(?:analy[sz]\w+|examin\w+|identif\w+|observ\w+|inspect\w*|look(?:ing)? at|understand\w*"
    r"|interpret\w*|deconstruct\w*|review\w*) (?:the|this|what|user)\b"
    rf"|(?:thinking|thought|reasoning|analysis)(?: process)?\s*[:：]|here(?:'s| is) (?:a|my|the) (?:thinking|thought|reasoning)\b"
    rf"|the (?:question|task|prompt|instructions?) (?:asks?|says?|wants?|requires?|is asking)\b[^.!?]{{0,80}}\b{_MEDIA}\b"
    r"|de gebruiker (?:wil|vraagt)\b|ik moet\b[^.!?]{0,60}\b(?:beschrijven|schrijven)\b"
    r"|(?:der|die) (?:nutzer|benutzer|anwender)(?:in)? (?:möchte|will|bittet|fragt|wünscht|hat)\b"
    r"|ich (?:soll|muss|werde|sollte)\b[^.!?]{0,80}\b(?:beschreiben|schreiben|erstellen|formulieren|betrachten)\b"
    r"|(?:schauen wir|lass(?:t|en sie)? (?:mich|uns))\b"
    r"|(?:alors, )?l['’]utilisat(?:eur|rice) (?:veut|demande|souhaite|a demandé)\b|je (?:dois|vais)\b[^.!?]{0,60}"
    r"\b(?:décrire|écrire|rédiger|regarder|analyser)\b|(?:regardons|analysons|voyons)\b"
    r"|(?:bueno, |vale, )?(?:el usuario|la usuaria) (?:quiere|pide|solicita|desea)\b|(?:debo|tengo que|voy a|necesito)\b"
    r"[^.!?]{0,60}\b(?:describir|escribir|analizar|crear)\b|(?:veamos|analicemos)\b"
    r"|l['’]utente (?:vuole|chiede|desidera)\b|devo\b[^.!?]{0,60}\b(?:descrivere|scrivere)\b"
    r"|o (?:usuário|utilizador) (?:quer|pede|pediu|deseja)\b|(?:preciso|devo|vou)\b[^.!?]{0,60}\b(?:descrever|escrever)\b"
    r"|пользователь (?:хочет|просит|запрос)|(?:мне нужно|я должен|давайте)\b"
    r"|(?:嗯|好的|好|首先|那么|现在|現在|让我|讓我)?[，,。、\s]*(?:用户|用戶|使用者)(?:想|要|让|讓|希望|请求|要求|需要|发|上传|给)"
    r"|(?:嗯|好的|好|首先|那么|现在|現在)?[，,。、\s]*我(?:现在|現在|首先|先)?"
    r"(?:来看|先看|看看|(?:需要|应该|應該|要|得)[^。！？]{0,16}(?:描述|写|寫|分析|观察|生成|给出|输出|说明|說明|标题|回答))"
    r"|(?:嗯|好的|好|首先)?[，,。、\s]*(?:让我|讓我|我们来|我們來)(?:先|来|來)?(?:看|分析|想|仔细|描述)"
    r"|(?:まず|さて|では|えっと)?[、,\s]*(?:ユーザー|利用者)(?:は|が|から)|(?:まず|さて|では)[、,\s]*(?:画像|写真|この)[^。]{0,30}"
    r"(?:見て|確認|分析)(?:み)?(?:ましょう|ます|る必要)"
    r"|【?(?:思考|推理|思路|分析|考え|생각)(?:过程|過程)?】?\s*[:：】\n]"
    r"|kullanıcı\b[^.!?]{0,60}\b(?:istiyor|istedi)|użytkownik\b[^.!?]{0,20}\b(?:chce|prosi|poprosił)|المستخدم (?:يريد|يطلب|طلب)"
    r"|người dùng (?:muốn|yêu cầu)|pengguna (?:ingin|meminta|mau)\b|उपयोगकर्ता[^।]{0,60}(?:चाह|मांग)"
    r"|(?:användaren|brugeren|brukeren) (?:vill?|ber|ønsker|önskar)\b|uživatel (?:chce|žádá)|користувач (?:хоче|просить)"
    r"|käyttäjä (?:haluaa|pyytää)|ο χρήστης (?:θέλει|ζητά)|המשתמש (?:רוצה|מבקש)|ผู้ใช้(?:ต้องการ|ขอ)|utilizatorul (?:dorește|vrea|cere)"
    r"|a felhasználó\b[^.!?]{0,60}\b(?:kér|szeretne)"
    r"|(?:zuerst|zunächst|als erstes) (?:schaue|sehe|betrachte|analysiere) ich\b|je commence par\b"
    r"|(?:primero|en primer lugar),? (?:analizo|observo|miro|voy a)\b|(?:primeiro,? )?(?:vou|analiso) (?:analisar|olhar|a imagem)\b"
    r"|(?:per prima cosa|prima di tutto|innanzitutto),? (?:analizzo|osservo|guardo)\b"
    r"|(?:сначала|для начала)[^.!?]{0,20}(?:проанализирую|посмотрю|рассмотрю|опишу)"
    r"|首先(?:来|我)?(?:分析|观察|看)(?:一下)?(?:这|图|照片)|(?:まず、?)?(?:この)?(?:画像|写真)を(?:分析|確認|観察)し(?:ます|ましょう|てみ)"
    r"|(?:이미지|사진)를 (?:분석|확인|살펴)(?:해 보|하겠|보겠)"
    r"|(?:먼저|우선|자|음)?[,\s]*(?:사용자(?:가|는|의|께서))|(?:먼저|우선)[,\s]*(?:이미지|사진)(?:를|을)[^.]{0,30}(?:보|분석|살펴)"
    r")",
    re.IGNORECASE,
)
_SECOND_THOUGHTS = re.compile(
    r"(?<=[.!?…])[\"”]?\s+(?:no, )?(?:wait|hm+|actually, no|scratch that|on second thought|correction)[,.:…!—-]",
    re.IGNORECASE,
)
_TO_ITSELF = re.compile(
    r"\b(?:let me|i(?:'d| would) (?:say|go|guess|describe)|i(?:'m| am) (?:not )?(?:sure|certain)|maybe i|so (?:it's|this is|that's)"
    r"|(?:i|we) (?:think|guess|suppose|should|need|must|believe|wonder|notice|can see|will))\b"
    r"|(?:^|(?<=[.!?…])\s{1,9})(?:looking (?:more )?close(?:r|ly)\b|on (?:a )?(?:closer|second) (?:look|inspection|thought)\b"
    r"|(?:no|wait|hm+|okay|ok|so|right|alright|well), (?:it|this|that|the|there|i|we|maybe|perhaps)\b)",
    re.IGNORECASE,
)
"""What nobody says to those who are to read a caption."""
_QUOTED = re.compile(r"\"[^\"]{1,400}\"|“[^”]{1,400}”|«[^»]{1,400}»|「[^」]{1,400}」|(?<!\w)['‘][^'’]{1,400}['’](?!\w)")
_WHO_ASKS = re.compile(
    r"\b(?:user|nutzer|benutzer|anwender|utilisat\w+|usuari\w|utente|usuário|utilizador|gebruiker|пользователь)|用户|用戶|使用者|ユーザー|사용자",
    re.IGNORECASE,
)
_WHAT_IS_ASKED = re.compile(
    r"\b(?:caption|descri\w+|transcri\w+|extract\w*|ocr|alt[- ]?text|json|bildunterschrift|beschreib\w+|légende|décri\w+|descrev\w+|legenda)\b"
    r"|описа|подпис|расшифр|描述|说明|說明|标题|標題|转录|轉錄|提取|识别|識別|説明|書き起こ|설명|전사",
    re.IGNORECASE,
)
_FIRST_WORDS = 200
_ASIDES = re.compile(
    r"(?:\n\s{0,9}|(?<=[.!?…\"”])\s{1,9})(?:[*_]{0,4}(?:tags?|keywords?|hashtags?|confidence|safety|language|schlagwörter|mots[- ]clés|标签|标籤|关键词)"
    r"[*_]*\s*[:：][^\n]*(?:\n\s*-[^\n]*)*|(?:#\w+[ ,]*){2,}|\(note[^()]{0,300}\)"
    r"|[(\[](?:word count:? ?)?\d{1,4} ?(?:words?|characters?|chars|tokens?|wörter|zeichen|mots|palabras|字|文字)[^()\[\]]{0,20}[)\]]"
    r"|(?<=\n)(?:[*_]{0,4}(?:reasoning|rationale|justification|explanation|(?:word|character) count|begründung|erklärung|explication"
    r"|explicación|spiegazione|explicação|пояснение|обоснование|理由|解释|解釋|解説)[*_]*\s*[:：]"
    r"|(?:this|the) (?:caption|alt[- ]?text|description) (?:captures?|focuses|describes|highlights|is|provides|aims|includes|follows|meets)\b)"
    r"[^\n]*|(?:alternatively|or, |another option)[^\n]{0,400})\s*$",
    re.IGNORECASE,
)
"""What a model adds that has fields of its own, or is another answer."""
_LEFTOVERS = re.compile(
    r"(?:\s*(?:<\|\w{1,30}\|>|</?s>|<(?:eos|bos|unk|pad|end_of_turn)>|\[PAD\]|<｜end▁of▁sentence｜>|\ufffd))+\s*$",
    re.IGNORECASE,
)
"""Tokens of the template at the end of a text."""
_STRONG = re.compile(r"\*\*(\S(?:[^*\n]{0,200}\S)?)\*\*")
_LABELS = (
    r"(?:(?:so|therefore|thus|hence|ok(?:ay)?|now)[, ]+)?(?:(?:here(?:'s| is)|this is) )?(?:(?:the|my|your|a|an) )?"
    r"(?:(?:final|finished|best|resulting|suggested|revised)\s+)?"
    r"(?:answer|caption|output|response|description|alt[- ]?text|result|version|json|summary)"
    r"(?:\s+(?:for|of|to|in|is|would be|could be|should be|will be|as|would|json)\b[^\n:：]{0,40})?"
    r"|final|(?:endgültige|finale|abschließende)\s+(?:antwort|bildunterschrift|beschreibung)|antwort|bildunterschrift|beschreibung"
    r"|(?:réponse|légende|description)(?:\s+finale?)?|(?:respuesta|leyenda|descripción)(?:\s+final)?|pie de foto"
    r"|(?:risposta|didascalia|descrizione)(?:\s+finale)?|(?:resposta|legenda|descrição)(?:\s+final)?"
    r"|(?:eindantwoord|antwoord|bijschrift)|(?:окончательный |итоговый )?ответ|(?:итоговая )?подпись|описание"
    r"|(?:最终|最終)?(?:的)?(?:答案|回答|描述|说明|說明|标题|標題|输出|輸出)|(?:图片|圖片)?(?:说明|說明|描述)|(?:最終的な)?(?:回答|答え|キャプション|説明)"
    r"|(?:최종\s*)?(?:답변|답|캡션|설명)"
)
_LABEL = re.compile(rf"(?:^|\n)[ \t#*_>•【\[-]{{0,20}}(?:{_LABELS})\s*+[*_]*+\s*+[:：】\]][*_]*[ \t]*", re.IGNORECASE)
_HEADING = re.compile(
    rf"(?:^|\n)[ \t]{{0,9}}(?:#{{1,6}}[ \t]*|\*\*|[=~-]{{2,9}}[ \t]*)(?:{_LABELS})[ \t]*(?:\*\*|[=~-]{{2,9}})?[ \t]*\n{{1,9}}",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"(?:^|\n)[ \t#*_>•-]{0,20}(?:option|version|variant[e]?|variante|opción|选项|方案|案)\s*[1A①一]\b[^\n:：]{0,30}[:：)*]+\s*",
    re.I,
)
_NEXT_OPTION = re.compile(
    r"\n[ \t#*_>•-]{0,20}(?:option|version|variant[e]?|variante|opción|选项|方案|案)\s*[2B②二]", re.I
)
_COURTESY = re.compile(
    r"^(?:(?:sure(?: thing)?|certainly|of course|absolutely|gladly|no problem|understood|okay|ok|natürlich|gerne?|klar|bien sûr"
    r"|claro(?: que sí)?|por supuesto|certamente|certo|当然(?:可以)?|好的|没问题|もちろん(?:です)?|はい|承知しました|물론(?:이죠|입니다)?|네"
    r"|конечно)[!.,。！，、:\s]+)?"
    r"(?:(?:here(?:'s| is| are)|below is|this is|hier ist|voici|aquí (?:tienes|está)|ecco|aqui está|hier is|вот|以下是|下面是|这是|以下は|"
    r"こちらが|다음은)[^\n:：]{0,120}[:：]\s*)?",
    re.IGNORECASE,
)
_FAREWELL = (
    r"(?:(?:please )?let me know|feel free|would you like|if you(?:'d| would)? (?:like|need|want|have)|(?:i )?hope (?:this|that|it)"
    r"|is there anything|do you want me|(?:sag|sagen sie) mir|lass(?:en sie)? (?:es )?mich wissen|möchtest du|möchten sie"
    r"|n['’]hésitez pas|souhaitez-vous|dime si|avísame|¿quieres|¿te gustaría|fammi sapere|vuoi che|me avise|gostaria que"
    r"|如果(?:您|你)?(?:需要|想|还)|如有|希望(?:这|對|对)|请告诉我|他に|必要でしたら|ご希望|필요하시면|더 필요|дайте знать|надеюсь)"
)
_GOODBYE = re.compile(rf"(?:(?<=[.!?…\"”])\s++|(?<=[。！？])|\n\s*+){_FAREWELL}[^\n]{{0,300}}$", re.IGNORECASE)
_NOTE = re.compile(
    r"\n[^\S\n]*+\n\s*+[(*_]*+(?:note|hinweis|remarque|nota|注(?:意|记)?|メモ)\s*[:：][^\n]{0,500}$", re.IGNORECASE
)
_NEXT_TURN = re.compile(r"\n[^\S\n]*+(?:user|human|question|instruction)\s*:\s", re.IGNORECASE)
_SPEAKER = re.compile(r"^\s*(?:assistant|model|ai)\s*(?:[:：]\s*|\n+)", re.IGNORECASE)
_BOXED = re.compile(r"\$*\\boxed\{(?:\\text(?:bf)?\{)?(.*)\}\$*\s*\.?$", re.DOTALL)
_EMPHASIS = re.compile(r"^(\*\*|__|\*|_|`)(?=\S)(.+)(?<=\S)\1$", re.DOTALL)
_LIST_MARK = re.compile(r"^(?:[-*•]|>)\s+")
_LEAST_REPEATED = 20
"""Characters of a text that is given twice; shorter ones may well be said twice."""
_MOST_LOOKED_AT = 20_000
_MOST_TAIL = 1_000


def thinks_aloud(text: str) -> bool:
    """Tell a text that begins with what a model is about to do, or was asked for, instead of what is seen or heard."""
    text = text[:_MOST_LOOKED_AT]
    # What is written or said in a picture may well be second thoughts.
    return bool(_ALOUD.match(text) or _SECOND_THOUGHTS.search(_QUOTED.sub("", text)))


def thinks_before_it_answers(text: str) -> bool:
    """Tell a text of several paragraphs of which some but the last are words to itself."""
    before, _, last = text[:_MOST_LOOKED_AT].strip().rpartition("\n\n")
    return bool(last.strip() and _TO_ITSELF.search(_QUOTED.sub("", before)))


def thinks_of_its_task(text: str) -> bool:
    """Tell a text that begins with who asked for what: of what may have been copied, nothing else is surely a thought.

    People say and write all day what they are about to do, and have second thoughts.
    """
    first = text[:_FIRST_WORDS]
    return bool(_ALOUD.match(first) and _WHO_ASKS.search(first) and _WHAT_IS_ASKED.search(first))


def spoken_answer(text: str) -> str:
    """Return what of an answer in prose is the answer: without thoughts before a label such as "Final answer:",
    without courtesies, other versions and further turns. Empty where there are thoughts alone.
    """
    text = _SPEAKER.sub("", text[:_MOST_LOOKED_AT])
    if (further := _NEXT_TURN.search(text)) and text[: further.start()].strip():
        text = text[: further.start()]
    if boxed := _BOXED.search(text.strip()):
        inner = boxed[1].strip()
        text = inner[:-1] if inner.endswith("}") and inner.count("}") > inner.count("{") else inner
    if option := _OPTION.search(text):
        end = _NEXT_OPTION.search(text, option.end())
        text = text[option.end() : end.start() if end else len(text)]
    labels = [*_LABEL.finditer(text), *_HEADING.finditer(text)]
    last = max((label.end() for label in labels if text[label.end() :].strip()), default=0)
    if last:
        text = text[last:]
    bare = without_courtesies(text)
    return "" if thinks_aloud(bare) or thinks_before_it_answers(bare) else bare


def copied_answer(text: str) -> str:
    """Return what of an answer in prose was copied or transcribed: all but a courtesy above it; empty for thoughts."""
    if thinks_of_its_task(text):
        return ""
    begins = _COURTESY.match(text)
    return text[begins.end() :] if begins and begins[0].rstrip(" ").endswith("\n") else text


def without_courtesies(text: str) -> str:
    """Return a text without a friendly word before and after it, emphasis around the whole, and its repetition."""
    bare = text.strip()
    begins = _COURTESY.match(bare)
    if begins and begins.end() < len(bare):
        bare = bare[begins.end() :].strip()
    head, tail = bare[:-_MOST_TAIL], bare[-_MOST_TAIL:]
    tail = _NOTE.sub("", _LEFTOVERS.sub("", tail))
    for _ in range(3):
        tail = _ASIDES.sub("", _GOODBYE.sub("", tail)).rstrip()
    bare = (head + tail).strip()
    bare = _STRONG.sub(r"\1", bare)
    if (quoted := _EMPHASIS.match(bare)) and quoted[1] not in quoted[2]:
        bare = quoted[2].strip()
    if "\n" not in bare:
        bare = _LIST_MARK.sub("", bare)
    return single(bare) or text.strip()


def single(text: str) -> str:
    """Return a text that is given several times, and nothing else, a single time."""
    words = text.split()
    for times in (2, 3, 4, 5):
        length, left = divmod(len(words), times)
        if not left and length and words == words[:length] * times:
            half = " ".join(words[:length])
            if len(half) >= _LEAST_REPEATED:
                end = re.match(rf"\s*(?:\S+\s+){{{length - 1}}}\S+", text)
                return end[0].strip() if end else half
    middle, odd = divmod(len(text), 2)
    if not odd and middle >= _LEAST_REPEATED and text[:middle] == text[middle:]:
        return text[:middle]
    return text
