"""What models say instead of an answer: that they will not give it, or that they got no media."""

# ruff: noqa: E501 - the tables of what models say read better in long lines

from __future__ import annotations

import re

# Refusals open an answer, are short, and say what will not be done.
REFUSAL_CHARACTERS = 500
_REGRETS = (
    r"(?:(?:oh|hello|hi|hmm)[,.!] )?(?:(?:i['’]?m |i am )?(?:very |so |really |truly )?sorry|i apologi[sz]e(?: for (?:the|any) [\w ]{1,40})?|my apologies|apologies|unfortunately)"
    r"\s*(?:[,.:;!—-]+|\bbut\b|\bthat\b|$)"
)
_UNABLE = (
    r"(?:i (?:can(?:no|['’])t|cannot|am (?:not able|unable) to|won['’]t|do not|don['’]t|must decline|have to decline|will not"
    r"|(?:am |['’]m )not (?:able|allowed|permitted|comfortable))|i['’]m (?:not able|unable|not allowed|not comfortable)|unable to)"
)
_ACTS = (
    r"(?:assist|help|describ\w+|captions?|captioning|identify\w*|process|comply|fulfil\w*|view|see|analy[sz]e|transcribe|access|decline|engage"
    r"|feel comfortable|provide (?:a |an |any |the )?(?:description|captions?|alt|information|details|assistance|answer|summary)"
    r"|do (?:that|this)|continue|discuss|share)"
)
_REFUSALS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"{_REGRETS}.{{0,160}}\b{_ACTS}\b",
        rf"(?:{_REGRETS}.{{0,80}}?)?(?:as|i['’]m (?:just |only )?|i am (?:just |only )?)\s*an? (?:[\w-]+[ -]){{0,3}}(?:ai|language model|assistant|llm)\b"
        r"(?:[ ,.]|$)",
        rf"{_UNABLE}\s+(?:[\w'’]+\s+){{0,4}}{_ACTS}\b",
        r"i(?:['’]m| am) (?:designed|programmed|trained|required)\b.{0,120}\b(?:cannot|can['’]t|not)\b",
        r"i (?:must|have to|need to|will have to) (?:respectfully |politely )?(?:decline|refuse)\b",
        r"(?:this|the|your) (?:request|prompt|content|image|picture|photo)\b.{0,60}\b(?:violat\w+|against|flagged|blocked|not permitted)\b.{0,60}"
        r"\b(?:polic(?:y|ies)|guidelines|rules|safety|terms|system)\b",
        r"\W*(?:request|content|response|output|image) (?:refused|denied|rejected|blocked|filtered|removed|withheld|unavailable)\W*$",
        r"(?:(?:es )?tut mir leid|leider|entschuldig(?:ung|en sie)|bedauerlicherweise)?[\s,.!:;]*(?:aber |ich |als |das |dies(?:es|e|en)? |dazu |dabei )"
        r".{0,100}\b(?:kann|darf|möchte|werde)\b.{0,80}\b(?:nichts?|keine?n?)\b.{0,80}\b(?:helfen|beschreiben|unterstützen|identifizieren"
        r"|verarbeiten|weiter|sehen|anzeigen|sagen|erkennen)",
        r"(?:(?:es )?tut mir leid|entschuldigung|ich kann)[\s,.!]*(?:aber )?(?:ich kann |das |dies )?.{0,30}\b(?:nicht|keine?n?)\b.{0,60}$",
        r"als (?:ki|künstliche|sprachmodell|ki-)",
        r"(?:je suis désolée?|désolée?|malheureusement)[\s,.:]+.{0,160}\b(?:pas|peux|aider|décrire|impossible)",
        r"je ne (?:peux|suis)(?: malheureusement)? pas\s.{0,60}\b(?:aider|décrire|voir|identifier|mesure|analyser|fournir)",
        r"en tant qu['’](?:ia|intelligence|assistant|un modèle|modèle)|en tant que modèle",
        r"(?:lo siento|lo lamento|me temo|desafortunadamente|lamentablemente)[\s,.:]+.{0,160}\b(?:no puedo|ayudar|describir|asistir|no es posible)",
        r"no puedo (?:ver|ayudar|describir|identificar|asistir|procesar|analizar|proporcionar)\b|como (?:un )?(?:modelo de (?:lenguaje|ia)|ia\b|asistente)",
        r"(?:mi dispiace|purtroppo)[\s,.:]+.{0,160}\b(?:non posso|aiutar|descrivere|assister)",
        r"non posso (?:descrivere|aiutar|vedere|identificare|assister)|come (?:modello linguistico|modello di linguaggio|ia\b|assistente)",
        r"(?:desculpe|sinto muito|lamento|infelizmente)[\s,.:]+.{0,160}\b(?:não (?:posso|consigo)|ajudar|descrever)",
        r"não (?:posso|consigo) (?:ver|ajudar|descrever|identificar|processar)|como (?:um )?(?:modelo de linguagem|ia\b|assistente)",
        r"(?:het spijt me|sorry|helaas|ik kan)\b.{0,120}\b(?:niet|geen)\b.{0,80}\b(?:helpen|beschrijven|bekijken|zien)",
        r"(?:извините|простите|к сожалению|вибачте|на жаль)\b.{0,160}(?:не могу|не можу|помочь|описать)",
        r"(?:я )?не (?:могу|можу) (?:описа|помо|допомо|виде|увиде|распозна|предостав)|как (?:языковая модель|ии\b|искусственный)",
        r"(?:你好[，,]?)?(?:很?抱歉|对不起|對不起)[，,。！!\s].{0,80}(?:无法|無法|不能|协助|帮助|描述|提供)",
        r"(?:你好[，,]?)?我(?:无法|無法|不能)(?:给到|看到|查看|描述|提供|识别|識別|回答|处理|處理|进行|協助|协助|帮助)",
        r"作为(?:一个|一款)?(?:人工智能|AI|语言模型)|.{0,30}(?:违规|敏感|不当|不适).{0,30}(?:无法|不能)(?:进行|描述|回答|提供|处理)",
        r"(?:申し訳(?:ありません|ございません)|すみません|ごめんなさい|恐れ入ります).{0,80}(?:できません|お手伝い|説明|いたしかねます|かねます)",
        r"(?:.{0,40}(?:お応え|お答え|対応|ご説明|説明|お手伝い|回答|見ること)(?:する)?(?:こと)?[はが]?(?:でき(?:ません|ない)|いたしかね|しかね).{0,10}$)|aiとして",
        r"(?:죄송합니다|죄송하지만|미안합니다).{0,80}(?:없습니다|도와|설명)|.{0,30}(?:볼|설명할|도와드릴|처리할|답변할) 수 (?:가 )?없(?:습니다|어요|는)",
        r"(?:przepraszam|niestety|przykro mi)\b.{0,80}\bnie (?:mogę|jestem)|nie mogę (?:opisać|pomóc|zobaczyć)",
        r"(?:üzgünüm|maalesef|özür dilerim)\b.{0,100}(?:[ae]mam|[ae]m[ıi]yorum|mümkün değil)",
        r"(?:عذر|آسف|أعتذر|معذرة).{0,80}(?:لا يمكن|لا أستطيع)|(?:لا يمكنني|لا أستطيع) (?:وصف|المساعدة|رؤية)",
        r"(?:क्षमा करें|मुझे खेद|माफ़|माफ).{0,120}नहीं",
        r"xin lỗi.{0,80}không thể|tôi không thể (?:mô tả|giúp|xem)",
        r"maaf\b.{0,80}tidak (?:dapat|bisa)|saya tidak (?:dapat|bisa) (?:membantu|menjelaskan|melihat)",
        r"(?:jag är ledsen|tyvärr|förlåt|beklager|undskyld|jeg beklager|desværre|dessverre)\b.{0,80}\bkan (?:jag |jeg )?(?:inte|ikke)",
        r"(?:omlouvám se|bohužel|ospravedlňujem sa|žiaľ)\b.{0,80}\b(?:nemohu|nemůžu|nemôžem)",
        r"(?:λυπάμαι|συγγνώμη|δυστυχώς).{0,80}δεν μπορώ|(?:מצטער|סליחה).{0,80}(?:לא יכול|אין באפשרות)",
        r"(?:sajnálom|elnézést|sajnos)\b.{0,80}nem tud|(?:îmi pare rău|scuze|din păcate)\b.{0,80}nu pot",
        r"(?:valitettavasti|pahoittelen|anteeksi)\b.{0,80}en voi|(?:ขออภัย|ขอโทษ).{0,80}ไม่สามารถ",
    )
)
_THING = r"(?:images?|pictures?|photos?|photographs?|files?|attachments?|videos?|audio|recordings?|media)"
_UNSEEN = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"(?:(?:sorry|hmm|i'm sorry)[,.!]* (?:but )?)?(?:it (?:seems|looks like|appears)(?: that| like)? )?(?:there(?:['’]s| is| was| are) no|no"
        rf"|i (?:don['’]t|do not|can(?:no|['’])t|cannot|couldn['’]t|did(?: not|n['’]t)) (?:see|find|view|access|open|load|receive))"
        rf"(?: an?| any| the| your)? {_THING}\b[^.]{{0,60}}(?:attached|provided|uploaded|shared|included|sent|(?:in|with|to) your"
        r"|in the (?:message|conversation|chat|request)|you(?:['’]re| are| were| have|['’]ve| want| mention)|available to|directly"
        r"|to (?:describe|caption|analy|transcribe))",
        rf"(?:(?:sure|of course|hello|hi|i['’]d be (?:happy|glad) to help)[^.!]{{0,40}}[.!,]+ )?(?:please|could you|can you|kindly)[^.?!]{{0,30}}\b"
        rf"(?:provide|upload|share|attach|send|re-?upload)\b[^.?!]{{0,16}}\b{_THING}(?: (?:you|so|for|first|again|and|that|to|here)\b[^,]{{0,60}})?"
        r"[.?!\s]*$",
        rf"(?:error: )?(?:it (?:seems|looks like|appears)(?: that)? )?(?:the |your )?{_THING}[^.,]{{0,20}}(?:did(?:n['’]t| not) (?:come through|load|upload)"
        r"|(?:could|can)(?: ?not|n['’]t) be (?:loaded|opened|displayed|processed|read|accessed)|failed to (?:load|upload))",
        rf"(?:error: )?unable to (?:load|open|access|view|process|decode|read) (?:the |this |your )?{_THING}\W*$",
        rf"(?:the |this |your )?{_THING} (?:is|was|appears) (?:too|so) (?:blurry|dark|small|low|unclear)\b[^.]{{0,40}}\bto (?:describe|identify|make out"
        r"|see|caption)",
        r"ich (?:sehe|habe) kein(?:e[ns]?)? (?:bild|foto|datei)\b|es wurde kein(?:e)? (?:bild|foto|datei)\b|kein(?:e)? (?:bild|foto|datei)\b[^.]{0,20}"
        r"(?:bereitgestellt|hochgeladen|angehängt|übermittelt)|bitte (?:lade|laden sie|stell|senden|schick)\w*\b[^.]{0,30}\b(?:bild|foto|datei)",
        r"je ne vois (?:aucune|pas d['’]) ?(?:image|photo)|aucune (?:image|photo) n['’]a été|veuillez (?:fournir|télécharger|joindre|partager)"
        r"[^.]{0,20}(?:image|photo)",
        r"no (?:veo|hay|encuentro|se (?:ha|me ha) (?:proporcionado|adjuntado)) ninguna (?:imagen|foto)|por favor,? (?:proporciona|sube|adjunta|comparte)"
        r"\w*[^.]{0,20}(?:imagen|foto)",
        r"non vedo (?:alcuna|nessuna) (?:immagine|foto)|per favore,? (?:fornisci|carica|condividi)[^.]{0,20}(?:immagine|foto)",
        r"nenhuma (?:imagem|foto) foi|não vejo nenhuma (?:imagem|foto)|por favor,? (?:forneça|envie|carregue)[^.]{0,20}(?:imagem|foto)",
        r"我?(?:看不到|没有看到|未看到|没有收到|未收到)[^。]{0,10}(?:图|照片)|(?:您|你)?(?:没有|未)(?:提供|上传|发送)[^。]{0,6}(?:图|照片)"
        r"|请(?:您)?(?:上传|提供|发送)[^。]{0,8}(?:图片|照片|图像)[。！!]?$",
        r"画像が?(?:見え|表示され|添付され|確認でき|提供され)(?:てい)?ません|画像を(?:アップロード|添付|提供|共有)して",
        r"(?:이미지|사진)가 (?:첨부|제공|보이)[^.]{0,8}(?:않|없)|(?:이미지|사진)를 (?:업로드|첨부|제공)해",
        r"я не вижу (?:изображени|картинк|фото)|изображение не (?:было )?(?:предоставлено|загружено|прикреплено)"
        r"|пожалуйста,? (?:загрузите|предоставьте|пришлите)",
        r"(?:er is )?geen (?:afbeelding|foto) (?:bijgevoegd|toegevoegd|geüpload|ontvangen)",
    )
)


def refused(text: str) -> bool:
    """Tell a refusal that a model put into words: short, with a regret or an inability, and what will not be done."""
    text = text.strip()
    return 0 < len(text) <= REFUSAL_CHARACTERS and any(pattern.match(text) for pattern in _REFUSALS)


def unseen(text: str) -> bool:
    """Tell a model's words that it got no media, or none it can make out: mostly its server dropped them on the way."""
    text = text.strip()
    return 0 < len(text) <= REFUSAL_CHARACTERS and any(pattern.match(text) for pattern in _UNSEEN)
