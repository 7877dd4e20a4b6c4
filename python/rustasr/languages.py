"""The languages of Whisper: ISO code to English name, in the order of the token ids.

The order is that of openai-whisper `tokenizer.LANGUAGES`; a model knows the codes that its file lists
(99 up to large-v2, 100 with Cantonese since large-v3, none for the English-only models).
"""

from __future__ import annotations

_TABLE = """
en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese
tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi
fi:finnish vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish
hu:hungarian ta:tamil no:norwegian th:thai ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin
mi:maori ml:malayalam cy:welsh sk:slovak te:telugu fa:persian lv:latvian bn:bengali sr:serbian
az:azerbaijani sl:slovenian kn:kannada et:estonian mk:macedonian br:breton eu:basque is:icelandic
hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician
mr:marathi pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan
ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao uz:uzbek
fo:faroese ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk mt:maltese sa:sanskrit lb:luxembourgish
my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian ln:lingala ha:hausa
ba:bashkir jw:javanese su:sundanese yue:cantonese
"""

LANGUAGE_NAMES: dict[str, str] = {
    code: name.replace("_", " ") for code, name in (entry.split(":") for entry in _TABLE.split())
}

_OTHER_NAMES = {
    "burmese": "my",
    "castilian": "es",
    "farsi": "fa",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
    "jv": "jw",
    "iw": "he",
    "fil": "tl",
    "nb": "no",
}

_CODE_OF_NAME = {name: code for code, name in LANGUAGE_NAMES.items()} | _OTHER_NAMES


def language_code(language: str) -> str | None:
    """The code of a language given by code ("de", "de-AT", "DE") or English name; None if unknown."""
    wanted = language.strip().lower().replace("_", "-")
    if wanted in LANGUAGE_NAMES:
        return wanted
    base = wanted.split("-", 1)[0]
    return _CODE_OF_NAME.get(wanted.replace("-", " ")) or (
        base if base in LANGUAGE_NAMES else _CODE_OF_NAME.get(base)
    )


__all__ = ["LANGUAGE_NAMES", "language_code"]
