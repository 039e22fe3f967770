"""Answers that are wrapped in words: thoughts in many marks and in none, labels, courtesies, loops, refusals, echoes.

What looks alike and is a good answer is kept.
"""

# ruff: noqa: E501 - the tables of what models say read better in long lines, and in their own signs

import json
from typing import Any

import pytest

from captions.tasks import TASKS, Ask, Reading, prompt, read
from captions.tasks.reader import tidy

ANSWER = "A wet brown dog runs along a sandy beach at sunset."
THOUGHT = "The user wants a short caption. Let me look: a dog, brown, wet; it runs on sand. Maybe a wolf?"
DRAFT = '{"caption": "A grey wolf stands in deep snow.", "tags": ["wolf"]}'
MAIN = {
    "caption": "caption", "alt_text": "alt", "objects": "scene", "chart": "summary", "emotion": "summary",
    "music": "summary", "video": "summary", "audio_qa": "answer",
}  # fmt: skip


def shaped(text: str, task: str = "caption") -> str:
    return json.dumps({MAIN[task]: text}, ensure_ascii=False)


def reading(answer: str, task: str = "caption", language: str = "en") -> Reading:
    return read(Ask(task=task, language=language, question="When?" if task == "audio_qa" else ""), answer)


def text_of(answer: str, task: str = "caption", language: str = "en") -> str | None:
    output = reading(answer, task, language).output
    return output.text if output is not None else None


MARKS = [
    ("<think>", "</think>"), ("<reflection>", "</reflection>"), ("[REASONING]", "[/REASONING]"),
    ("<mm:think>", "</mm:think>"), ("<|think|>", "<|/think|>"), ("<|thought_begin|>", "<|thought_end|>"),
    ("<think_start>", "<think_end>"), ("<THOUGHT_PROCESS>", "</THOUGHT_PROCESS>"),
    ("<inner_thoughts>", "</inner_thoughts>"), ("<antThinking>", "</antThinking>"), ("<plan>", "</plan>"),
    ("<cot>", "</cot>"), ("<rationale>", "</rationale>"), ("<longcat_think>", "</longcat_think>"),
    ("<思考>", "</思考>"), ("＜think＞", "＜/think＞"), ("{{think}}", "{{/think}}"),
    ("**<think>**", "**</think>**"), ("<|start_of_reasoning|>", "<|end_of_reasoning|>"),
    ("<réflexion>", "</réflexion>"), ("<размышления>", "</размышления>"), ("<생각>", "</생각>"), ("<思考过程>", "</思考过程>"),
    ("\\u003cthink\\u003e", "\\u003c/think\\u003e"), ("<think/>\n<think>", "</think>"), ("<ctrl94>thought\n", "<ctrl95>"),
]  # fmt: skip


@pytest.mark.parametrize(("opens", "closes"), MARKS)
def test_reasoning_between_any_marks_is_no_caption(opens: str, closes: str) -> None:
    for answer in (ANSWER, shaped(ANSWER), f"```json\n{shaped(ANSWER)}\n```"):
        assert text_of(f"{opens}{THOUGHT}{closes}\n\n{answer}") == ANSWER
    assert text_of(f"{opens}{THOUGHT} So: {DRAFT} Hmm, wait") is None
    assert text_of(shaped(f"{opens}{THOUGHT}")) is None
    assert text_of(shaped(f"{opens}{THOUGHT}{closes}{ANSWER}")) in (ANSWER, None)
    if not opens.startswith(("\\", "<ctrl")):
        assert text_of(f"{THOUGHT} So: {DRAFT} no.{closes}\n{shaped(ANSWER)}") == ANSWER


@pytest.mark.parametrize(
    "answer",
    [
        f"```thinking\n{THOUGHT}\n```\n\n{ANSWER}",
        f"<|start|>assistant<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final "
        f"<|constrain|>json<|message|>{shaped(ANSWER)}",
        f"<details>\n<summary>Thought for 3 seconds</summary>{THOUGHT}</details>\n{ANSWER}",
        f"{THOUGHT}\n<answer>{ANSWER}</answer>",
        f"<SUMMARY>{THOUGHT}</SUMMARY><REASONING>{THOUGHT}</REASONING><CONCLUSION>{ANSWER}</CONCLUSION>",
        f"<think>{THOUGHT}</think><final_answer>{shaped(ANSWER)}</final_answer>",
        f"{THOUGHT}\n<|begin_of_box|>{ANSWER}<|end_of_box|>",
        f"\\boxed{{{ANSWER}}}",
        json.dumps({"reasoning": THOUGHT, "final_answer": ANSWER}),
        json.dumps({"thought": THOUGHT, "answer": {"caption": ANSWER}}),
        f"{DRAFT}\n\nWait, on reflection that is wrong.\n\n{shaped(ANSWER)}",
        f"{shaped(ANSWER)}<|im_end|>\n<|im_start|>user\nThanks!",
        f"<|im_start|>assistant\n{ANSWER}<|im_end|>",
        f"{ANSWER}<|endoftext|>Human: and this?",
        f"[gMASK]<sop>{ANSWER}",
        f"Assistant: {ANSWER}\n\nUser: Thanks!\nAssistant: You're welcome!",
        f"{ANSWER}\n\n{ANSWER}",
        f"{ANSWER} {ANSWER} {ANSWER}",
        f"**{ANSWER}**",
        f"# Caption\n\n{ANSWER}",
        f"Sure, here's a caption for the image:\n\n{ANSWER}",
        f"{ANSWER}\n\nWould you like me to write another version?",
        f"Option 1: {ANSWER}\n\nOption 2: A dog at the sea.",
        shaped(f"Certainly! Here is the caption: {ANSWER} Let me know if you need anything else!"),
        shaped(shaped(ANSWER)),
        shaped(f"```json\n{shaped(ANSWER)}\n```"),
        json.dumps(shaped(ANSWER)),
        json.dumps({"caption": {"caption": ANSWER, "tags": []}}),
        json.dumps({"caption": {"en": ANSWER}}),
        json.dumps({"response": shaped(ANSWER)}),
        f"Caption this picture.\n{ANSWER}",
        f"Thought: I need to look.\nAction: look\nObservation: a dog\nFinal Answer: {ANSWER}",
        f"### Reasoning\nThe picture shows a dog.\n\n### Caption\n{ANSWER}",
        f"**Analysis**\nThe picture shows a dog.\n\n**Caption**\n{ANSWER}",
        f"思考过程：图片里有一只狗。\n\n回答：{ANSWER}",
        f"【思考】图片里有一只狗。\n【回答】{ANSWER}",
        f"Here are my reasoning steps:\n{THOUGHT}\n[BEGIN FINAL RESPONSE]\n{ANSWER}\n[END FINAL RESPONSE]\n<|end|>",
        f"analysis\n{THOUGHT}\nassistantfinal\n{ANSWER}",
        f"A dog it is. {'I look at it closely. ' * 8}\n<think>{THOUGHT}</think>\n\nAnswer: {ANSWER}",
        shaped(f"<|begin_of_box|>{ANSWER}<|end_of_box|>"),
        f"{ANSWER}\n\nTags: dog, beach\nConfidence: 0.9",
        f"{ANSWER}\n\n#dog #beach #sunset",
        f"{ANSWER} (Note: this is based on the visible content.)",
        f"{ANSWER}\n\n**Reasoning:** I chose this, as the dog is the main subject.",
        f"{ANSWER}\n\nThis caption captures the essence of the picture.",
        f"{ANSWER} (10 words)",
        shaped(f"{ANSWER}\n\nExplanation: The caption focuses on the dog."),
        shaped(f"{ANSWER}\n\nWord count: 10"),
        f"{ANSWER}\n\nAlternatively: A dog at the sea.",
        f"{ANSWER} <unk><unk>\ufffd\ufffd",
        "**A wet brown dog** runs along a sandy beach at sunset.",
        shaped(f"{ANSWER}<|im_end|>"),
        shaped("A wet brown dog <think>or a wolf?</think> runs along a sandy beach at sunset."),
        json.dumps([{"caption": "A wolf?"}, {"caption": ANSWER}]),
    ],
)
def test_what_stands_around_an_answer_goes(answer: str) -> None:
    assert text_of(answer) == ANSWER


QUIET = "There is a dog on a beach. It's brown. The light is orange, so sunset."
"""A thought that nothing but its mark tells from a caption."""


@pytest.mark.parametrize(
    "before",
    ["\ufeff", "\u200b", "\x00", "<s>", "<bos>", "<|assistant|>", "<|begin_of_box|>", "<answer>", "<br>", "- ", "🤔 ", "…", "\ufffd",
     "1. ", "Assistant: ", "Sure! ", "Okay. ", "</s>", "<|endoftext|>"],
)  # fmt: skip
def test_reasoning_is_told_whatever_a_template_leaves_before_it(before: str) -> None:
    assert (text_of(f"{before}<think>{QUIET}</think>{ANSWER}") or "").endswith(ANSWER)
    assert "orange" not in (text_of(f"{before}<think>{QUIET}</think>{ANSWER}") or "")
    assert text_of(f"{before}<think>{QUIET}</think>{shaped(ANSWER)}") == ANSWER
    assert text_of(f"{before}<think>{QUIET}") is None
    assert text_of(shaped(f"{before}<think>{QUIET}")) is None


@pytest.mark.parametrize(
    ("task", "good", "path"),
    [
        ("transcribe", {"segments": [{"text": "Hello there."}]}, ("segments", 0, "text")),
        ("transcribe", {"segments": [{"text": "Hello there."}], "sounds": "A car."}, ("sounds",)),
        ("video", {"summary": "A dog runs.", "speech": [{"text": "Hello there."}]}, ("speech", 0, "text")),
        ("video", {"summary": "A dog runs.", "scenes": [{"text": "A dog runs."}]}, ("scenes", 0, "text")),
        ("caption", {"caption": ANSWER, "visible_text": ["STOP"]}, ("visible_text", 0)),
        ("objects", {"scene": "A beach.", "objects": [{"name": "dog", "details": "brown"}]}, ("objects", 0, "details")),
    ],
)
def test_reasoning_goes_out_of_every_field_that_the_model_writes(task: str, good: Any, path: tuple[Any, ...]) -> None:
    for mark in (f"<think>{QUIET}</think>", f"<|begin_of_thought|>{QUIET}<|end_of_thought|>", f"{QUIET}</think>\n"):
        answer = json.loads(json.dumps(good))
        holder = answer
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = mark + holder[path[-1]]
        assert reading(json.dumps(answer), task).output == reading(json.dumps(good), task).output


def test_what_only_looks_like_reasoning_stays_in_a_transcript() -> None:
    for words in ("[thinking] Well, I would say yes.", "I <3 you.", "[laughs] No way."):
        assert text_of(json.dumps({"segments": [{"text": words}]}), "transcribe") == words


@pytest.mark.parametrize(
    "heard",
    ["<|startoftranscript|><|en|><|transcribe|><|0.00|> Hello there.<|2.00|><|endoftext|>",
     "<|en|><|NEUTRAL|><|Speech|><|withitn|>Hello there.", "language English<asr_text>Hello there."],
)  # fmt: skip
def test_tokens_of_models_that_hear_are_nothing_that_was_said(heard: str) -> None:
    assert text_of(json.dumps({"segments": [{"text": heard}]}), "transcribe") == "Hello there."


@pytest.mark.parametrize(
    "answer",
    [f"<tool_call>zoom\n<arg_key>caption</arg_key>\n<arg_value>{ANSWER}</arg_value>\n</tool_call>",
     f'<minimax:tool_call>\n<invoke name="answer">\n<parameter name="caption">{ANSWER}</parameter>\n</invoke>',
     "<!DOCTYPE html><html><body>Something went wrong</body></html>", "<html><h1>502 Bad Gateway</h1></html>",
     "Error: 500 Internal Server Error", "Rate limit exceeded. Please try again later.",
     "An error occurred while processing your request."],
)  # fmt: skip
def test_a_servers_words_and_a_tool_that_nobody_offered_are_no_caption(answer: str) -> None:
    assert text_of(answer) is None


def test_a_field_counts_before_what_else_it_may_be_called() -> None:
    """A sign's words beside the caption were taken for it."""
    assert text_of(json.dumps({"text": "STOP", "caption": ANSWER})) == ANSWER
    assert text_of(json.dumps({"text": "STOP", "alt": ANSWER, "purpose": "informative"}), "alt_text") == ANSWER
    assert text_of(json.dumps({"text": ANSWER, "caption": ""})) == ANSWER


@pytest.mark.parametrize(
    "label",
    ["Final answer:", "**Final Answer:**", "### Final Answer\n", "So the final caption is:", "Here is the caption:", "FINAL:",
     "Endgültige Antwort:", "Réponse finale :", "Respuesta final:", "最终答案：", "最終的な回答：", "최종 답변:", "Окончательный ответ:"],
)  # fmt: skip
def test_thoughts_in_plain_words_end_where_the_answer_is_announced(label: str) -> None:
    assert text_of(f"Let me think step by step. {THOUGHT}\n\n{label} {ANSWER}") == ANSWER


@pytest.mark.parametrize(
    "thought",
    [
        "Okay, let's see. The user wants me to caption this image.", "We need to produce a JSON object with caption.",
        "Got it, let's tackle this.", "Let me analyze the image carefully. There is a dog. I should mention it.",
        "嗯，用户让我描述这张图片。我先看看图片里有什么。", "好的，我现在需要给这张图片写一个说明。首先，图片中有一只狗。",
        "まず、ユーザーは画像の説明を求めています。", "Alors, l'utilisateur veut une légende. Regardons l'image.",
        "A wolf runs on sand. Wait, that's not right. A dog runs on sand.",
        "思考：用户想要图片说明，我需要先分析图片。", "Thinking Process:\n\n1. **Analyze the request:** caption this.",
        "Zunächst betrachte ich das Bild. Es zeigt einen Hund.", "Je commence par observer l'image. Il y a un chien.",
        "Primeiro, vou analisar a imagem. Há um cachorro.", "Per prima cosa analizzo l'immagine. C'è un cane.",
        "首先分析图片内容：图片中有一只狗。接下来写标题。", "画像を分析します。犬がいます。", "이미지를 분석해 보겠습니다. 개가 있습니다.",
        "Сначала проанализирую изображение. На нём собака.", "Kullanıcı bir başlık istiyor. Bir köpek var.",
        "Użytkownik chce podpisu. Na obrazie jest pies.", "المستخدم يريد وصفا للصورة. هناك كلب.",
        "Người dùng muốn mô tả ảnh. Có một con chó.", "Användaren vill ha en bildtext. Det finns en hund.",
        "Okay, der Nutzer möchte eine Bildunterschrift. Schauen wir mal.", "El usuario quiere una descripción de la imagen.",
    ],
)  # fmt: skip
def test_thoughts_alone_are_asked_again(thought: str) -> None:
    for answer in (thought, shaped(thought)):
        first = reading(answer)
        assert first.output is None
        assert any(problem.repairable for problem in first.problems)
    assert text_of(f"{thought}\n\n{shaped(ANSWER)}") == ANSWER


DOUBTS = "Hmm, maybe a seal? No, it's a dog by the water."


@pytest.mark.parametrize(
    "before",
    [
        f"<draft>{DOUBTS}</draft>", f"<inner_notes>{DOUBTS}</inner_notes>\n", "<step>A seal.</step><step>A dog.</step>",
        "<self_check level=\"2\">A seal, or a dog.</self_check>\n", f"<!-- {DOUBTS} -->\n", f"*thinking*\n{DOUBTS}\n*/thinking*\n",
        f"*Thinking...*\n\n{DOUBTS}\n\n", "Thought for 3 seconds\n\nA seal, or a dog.\n\n", "Reasoned for a moment\n",
        f"🤔 {DOUBTS}\n\n", f"{DOUBTS}\n\n", "It could be a seal or a dog. Looking closer, there are four legs.\n\n",
        "It is brown and wet. So it's a dog.\n\n", "A seal lies there.\n\nNo, that has legs.\n\n",
        "Step 1: Look at the image. There is a dog.\nStep 2: It runs.\n\n",
        "1. **Analyze the image:** a dog on a beach.\n2. **Draft:** A dog.\n3. **Final:** ",
    ],
)  # fmt: skip
def test_thoughts_in_marks_of_a_models_own_and_in_none_are_asked_again(before: str) -> None:
    first = reading(before + ANSWER)
    assert first.output is None
    assert [problem.repairable for problem in first.problems if problem.code == "reasoning"] == [True]
    assert text_of(f"{before}\n\n{shaped(ANSWER)}") == ANSWER


@pytest.mark.parametrize("line", ["=== {} ===", "--- {} ---", "## {}", "**{}**"])
def test_thoughts_under_a_heading_end_at_the_answers(line: str) -> None:
    answer = f"{line.format('REASONING')}\n{DOUBTS}\n{line.format('ANSWER')}\n{ANSWER}"
    assert text_of(answer) == ANSWER


@pytest.mark.parametrize("task", MAIN)
def test_no_task_takes_thoughts_loops_or_its_own_instructions_for_an_answer(task: str) -> None:
    request = prompt(Ask(task=task, question="When?" if task == "audio_qa" else ""))
    for useless in (THOUGHT, "dog " * 50, TASKS[task].request, TASKS[task].role, request.instructions[:400]):
        assert text_of(shaped(useless, task), task) is None, useless
    assert text_of(f"<think>{THOUGHT}</think>{shaped(ANSWER, task)}", task) == ANSWER
    assert text_of(f"{THOUGHT}\n</think>\n{shaped(ANSWER, task)}", task) == ANSWER
    assert text_of(f'{{"{MAIN[task]}": "A wet brown dog runs along a san', task) is None


@pytest.mark.parametrize(
    ("task", "answer", "text"),
    [
        ("ocr", {"blocks": [{"text": "Let me think about it"}]}, "Let me think about it"),
        ("transcribe", {"segments": [{"text": "I cannot help you."}]}, "I cannot help you."),
        ("code", {"code": "# <think>\nx = 1", "language": "python"}, "# <think>\nx = 1"),
    ],
)
def test_what_is_copied_is_kept_and_thoughts_around_it_are_not(task: str, answer: Any, text: str) -> None:
    for whole in (
        json.dumps(answer),
        f"<think>{THOUGHT}</think>{json.dumps(answer)}",
        f"{json.dumps(answer)}<|im_end|>",
    ):
        assert text_of(whole, task) == text
    assert text_of(THOUGHT, task) is None


@pytest.mark.parametrize("task", ["transcribe", "ocr", "code"])
@pytest.mark.parametrize(
    "words",
    [
        "I will describe the route to the station. Turn left at the church.",
        "Let's start with the weather. It will rain in the north.",
        "We have to think about the children first, said the mayor.",
        "The user wants a new password for this image service, so please call back.",
        "So, we are going to focus on the second chapter today. Wait, where is it?",
        "Ich werde das Buch morgen schreiben. Bis dann.", "Je vais analyser les chiffres avec vous. Bonjour à tous.",
        "Voy a escribir una carta a mi madre.", "我现在需要写一封信给妈妈。", "Analysis: the pump failed. Replace it.",
        "say what the picture shows",
    ],
)  # fmt: skip
def test_what_people_say_and_write_is_copied_though_a_model_might_think_so(task: str, words: str) -> None:
    """In prose, as models for speech and pages answer; a doubt has another model asked, and nothing is lost."""
    assert text_of(words, task) == words


@pytest.mark.parametrize("task", ["transcribe", "ocr", "code"])
@pytest.mark.parametrize(
    "thought",
    [
        THOUGHT, "Okay, the user wants me to transcribe this recording. I hear a man.",
        "We are asked by the user to extract the text of the image. It says STOP.",
        "嗯，用户让我识别图片里的文字。我先看看。", "Der Nutzer möchte eine Beschreibung. Ich soll den Text lesen.",
    ],
)  # fmt: skip
def test_thoughts_of_the_task_itself_are_no_copy(task: str, thought: str) -> None:
    assert text_of(thought, task) is None


@pytest.mark.parametrize(
    "caption",
    ['A comic dog says "I love you. Wait, no!" to a cat.', "A sign reads ‘Stop. Wait, look both ways’ by a road."],
)
def test_second_thoughts_that_are_quoted_are_seen_and_not_thought(caption: str) -> None:
    assert text_of(shaped(caption)) == caption
    assert text_of(shaped("A man's dog sits. Wait, it's a wolf.")) is None


@pytest.mark.parametrize(
    "answer",
    ["A wet brown dog runs along a sandy beach with a", "Ein nasser brauner Hund läuft an einem breiten Strand entlang und der",
     "A wet brown dog, a red ball, a green bucket,", '{"tags": ["dog"], "caption": "A wet brown dog runs al',
     '```json\n{"description": "A wet brown dog runs al'],
)  # fmt: skip
def test_an_answer_that_breaks_off_is_asked_again(answer: str) -> None:
    assert reading(answer).output is None
    assert "cut" in {problem.code for problem in reading(answer).problems}


def test_an_answer_that_breaks_off_behind_its_caption_is_whole_enough() -> None:
    assert text_of(f'{{"caption": "{ANSWER}", "tags": ["dog", "bea') == ANSWER
    assert text_of(f'{{"caption": "{ANSWER}", "ta') == ANSWER


@pytest.mark.parametrize(
    "text",
    ["A dog on a beach. " + "beach " * 30, "A brown dog runs on sand in the evening. " + "and the dog " * 20, "sand" * 12,
     "lalalalalalalalalalalala", "[PAD]" * 12, "dog dog dog dog", "the dog, " * 5, "yes. " * 7, "…", "-", "N/A", "null", "undefined", "0", "A", "{}", "***"],
)  # fmt: skip
def test_loops_behind_a_good_beginning_and_words_that_say_nothing_are_no_caption(text: str) -> None:
    assert text_of(shaped(text)) is None


def test_tags_that_only_count_or_loop_are_left_out() -> None:
    tags = ["dog", *(f"dog {n}" for n in range(30)), "!!!!!!", "aaaaaaaaaa", "dog dog dog dog", "<think>", "route 66"]
    assert tidy(tags) == ("dog", "dog 0", "dog 1", "dog 2", "route 66")


REFUSED = {
    "en": ["My apologies, but I'm unable to provide a description.", "I must decline to describe this picture.",
           "As a text-based AI, I can't view images.", "This image appears to violate our content policy.",
           "I'm just a language model, so I can't help you with that.", "Content blocked.", "[content filtered]"],
    "de": ["Als KI-Modell kann ich keine Bilder sehen.", "Dazu kann ich nichts sagen."],
    "fr": ["En tant qu'IA, je ne peux pas voir les images."], "es": ["No puedo ver la imagen."],
    "zh": ["图片中包含违规内容，我无法进行描述。", "你好，我无法给到相关内容。"], "ja": ["そのリクエストにはお応えできません。"],
    "ko": ["이미지를 볼 수 없습니다."], "ru": ["Как языковая модель, я не могу видеть изображения."],
    "pl": ["Przepraszam, ale nie mogę pomóc."], "tr": ["Üzgünüm, bu görseli açıklayamam."],
    "ar": ["عذراً، لا يمكنني وصف هذه الصورة."], "hi": ["मुझे खेद है, मैं मदद नहीं कर सकता।"],
    "vi": ["Xin lỗi, tôi không thể mô tả hình ảnh này."], "sv": ["Jag är ledsen, men jag kan inte hjälpa till med det."],
}  # fmt: skip
UNSEEN = [
    "I don't see any image attached.", "It seems there's no image attached. Could you please share the image?",
    "Please provide the image you would like me to caption.", "I'd be happy to help! Please share the image.",
    "Error: image could not be loaded.", "Es wurde kein Bild bereitgestellt.", "Aucune image n'a été fournie.",
    "您没有提供图片。", "请上传图片。", "画像が添付されていません。", "이미지가 첨부되지 않았습니다.", "Я не вижу изображения.",
]  # fmt: skip


@pytest.mark.parametrize(("language", "text"), [(name, text) for name, texts in REFUSED.items() for text in texts])
def test_refusals_of_many_wordings_are_refusals(language: str, text: str) -> None:
    assert reading(text, language=language).refused
    assert reading(shaped(text), language=language).refused


@pytest.mark.parametrize("text", UNSEEN)
def test_a_model_that_got_no_picture_did_not_refuse_it(text: str) -> None:
    for answer in (text, shaped(text)):
        first = reading(answer)
        assert first.output is None
        assert not first.refused


ALIKE = {
    "en": [
        'A terminal shows "<tool_call>" in green letters.', "An error page says that something went wrong.",
        'A sheet with the heading "Explanation: why (12 words)" in blue.', "A dog.\nThe description of a picture on a wall.",
        "Analysis of a chart on a screen in a dark room.", "Bora Bora from the air.", "Model airplanes hang from a ceiling.",
        'A whiteboard reads "Final answer: 42" above a formula.', "Let me in! reads a note on a red door.",
        'A poster that begins with the words "Let me think about it" in blue.', "We are open, says a sign above a door.",
        "First, a man opens the door; then a dog runs out.", "The user interface of a music player with large buttons.",
        "A chat in which the user asks for a recipe and an assistant answers with a list.", "Okay-shaped hand in yellow.",
        "Sure-footed goats climb a steep rock face.", "Three signs read SALE SALE SALE above a shop full of shoes.",
        "A scoreboard shows 0 0 0 0 0 0 0 0 0 in red digits.", "Knock knock jokes are printed on a napkin.",
        "A binary clock shows 0 1 0 1 0 1 0 1 0 1 0 1 above a desk.", "A slide titled Analysis: sales of 2020, in bars.",
        "Handwritten notes: 'Answer: B' is circled in red.", "Sorry We're Closed hangs on a glass door below a bell.",
        "I Can't Believe It's Not Butter: a yellow tub on a shelf.", "No image is shown on the screen of an old television.",
        "I cannot swim, says the shirt of a man who views the sea from a pier.", "I do not provide change, says a note.",
        "Unfortunately for the hikers, clouds hide the view of the valley.", "Error 404 in blue letters on a web page.",
        "Please upload photos here, says a kiosk screen with a blue arrow.", "Unable to fly, a penguin views the sea.",
        "A card says: If you would like more, let me know.", "A ruler: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18.",
        "an optical illusion with a man holding the same picture over and over",
        "Hmmingbirds is misspelt on a poster with two birds.", "Looking closer to the camera, a fox sits in snow.",
        "Step 1 of a manual: look at the drawing of a chair.", "Thinking man: a bronze statue on a stone block.",
        "Analysis\u2014a book with that title lies on a desk.",
        "A stage under red light.\n\nIn front of it, people look closely at a screen. So many hold up phones that it glows.",
        "Wait here, says a red line on a platform.", "Tags: a luggage label with that word hangs on a suitcase.",
        "A cat sits on a mat. A dog sits on a mat. A bird sits on a mat.", "Two birds, one on the fence and one on",
    ],
    "de": ["Leider geschlossen steht auf einem Schild an der Tür eines Cafés.", "Kein Bild hängt an der weißen Wand.",
           "Ich muss leider draußen bleiben steht auf einem Schild mit einem Hund."],
    "fr": ["Désolé, nous sommes fermés, dit une pancarte sur une porte."],
    "zh": ["用户界面的截图，左边是菜单，右边是图表。", "我需要一杯咖啡，马克杯上印着这句话。", "一张写着“对不起”的卡片放在桌上。"],
    "ja": ["ユーザーガイドの表紙に青い車が写っている。", "すみませんと書かれた看板が店の前に立っている。"],
}  # fmt: skip


@pytest.mark.parametrize(("language", "text"), [(name, text) for name, texts in ALIKE.items() for text in texts])
def test_good_captions_that_look_alike_are_kept(language: str, text: str) -> None:
    assert text_of(shaped(text), language=language) == text
    assert text_of(text, language=language) == text


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("ocr", {"blocks": [{"text": "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n" * 6}]}),
        ("ocr", {"blocks": [{"text": "SALE " * 12}]}),
        ("code", {"code": "x = [\n" + "    0, 0, 0, 0,\n" * 40 + "]", "language": "python"}),
        ("transcribe", {"segments": [{"text": "no no no no no no no no no no there's no limit"}]}),
    ],
)
def test_what_repeats_itself_in_the_media_is_copied(task: str, answer: Any) -> None:
    assert text_of(json.dumps(answer), task) is not None


def test_a_picture_of_a_laugh_has_it_for_its_alt_text() -> None:
    answer = json.dumps({"purpose": "text", "alt": "Ha ha ha ha!", "visible_text": ["Ha ha ha ha!"]})
    assert text_of(answer, "alt_text") == "Ha ha ha ha!"
    assert text_of(shaped("No, no, no, no.", "audio_qa"), "audio_qa") == "No, no, no, no."
