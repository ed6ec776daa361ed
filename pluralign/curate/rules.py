"""A crude safety classifier that needs no download: phrases of clearly harmful requests, in English.

It reads what the user asks, not what is answered: words of a refusal are those of the request. It finds some three in
ten of harmful requests and flags next to nothing that is harmless (docs/howto.md states the measured rates); what is
implied, told as fiction or asked in another language passes. Where safety matters, use a classifier trained for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..records import Messages
from .verdicts import Verdict

__all__ = ["RULES", "by_rules", "matched"]

# A rule is a line and the deeper lines that continue it; a <name> stands for a part.
_PARTS = {
    "gap": r"""
    (?:[^\s.?!;:]+\s+){0,4}?
    """,
    "how": r"""
    \b(?:how (?:to|do|can|could|would|should|might) ?(?:i|we|you|one|someone|somebody|people)?|(?:ways?|
      methods?|steps?|tips?|strateg(?:y|ies)|plans?|guide|tutorial|instructions?|recipe|script|help me|teach me|
      (?:tell|show) me how|want|need|going|trying|planning|like) (?:to|on|for|that)|best way of)\s+(?:\w+ly )?
    """,
    "person": r"""
    (?:someone|somebody|people|a (?:person|man|woman|girl|boy|guy|child|kid|cop|judge|politician|homeless \w+)|
      (?:my|his|her|your|the|our|an?) (?:\w+ )?(?:wife|husband|girlfriend|boyfriend|ex|boss|teacher|
      neighbou?rs?|mother|father|mom|dad|parents?|sister|brother|friend|co-?workers?|classmate|roommate|kids?|
      child|children|victims?|enem(?:y|ies)|partner|spouse|president)|him|her|them|others|women|children|kids|
      minors)
    """,
    "child": r"""
    (?:child(?:ren)?|kids?|minors?|toddlers?|infants?|bab(?:y|ies)|little (?:girls?|boys?)|(?:under-?age|
      pre-?teen|young) (?:girls?|boys?)|(?:[1-9]|1[0-7])[- ]years?[- ]old(?: \w+)?)
    """,
    "drug": r"""
    (?:crystal )?(?:meth(?:amphetamine)?|cocaine|crack|heroin|fentanyl|lsd|mdma|ecstasy|ghb|psil?ocybin|dmt|
      ketamine|illegal drugs|date rape drugs?|roofies?)
    """,
    "bomb": r"""
    (?:pipe |dirty |nuclear |nail |car |suitcase |fertili[sz]er |time |cobalt |chemical |home-?made )*(?:bombs?|
      nukes?|explosives?|incendiary devices?|molotov(?: cocktails?)?|grenades?|ied|landmines?|nerve (?:gas|
      agents?)|mustard gas|sarin|ricin|anthrax|(?:biological|chemical|nuclear|radiological|bio|
      mass[- ]destruction) ?(?:weapons?|agents?|devices?)|weapons? of mass destruction|ghost guns?|silencers?)
    """,
}

_RULES = {
    "violence": r"""
    <how><gap>(?:kill|murder|assassinate|strangle|stab|poison|torture|kidnap|abduct|maim|injure|hurt|harm|
      beat up|choke|dismember|run over|shoot|burn) <gap><person>\b
    \bget(?:ting)? away with <gap>(?:murder|killing|rape|raping|assault|molesting|a crime|stealing|theft|fraud|
      arson|robbery)
    \b(?:kill|murder|poison|strangle)(?:ing)? (?:someone|somebody|a person)\b
    \b(?:hide|dispose of|get rid of|dissolve) (?:a|the|my) (?:dead |human )?(?:body|corpse)\b
    \b(?:eat|cook|prepare|taste of) (?:human flesh|people|a human|humans)\b
    <how><gap>(?:hire|become) an? (?:hit ?man|assassin|contract killer)
    """,
    "weapons and terrorism": r"""
    \b(?:mak(?:e|ing)|build(?:ing)?|creat(?:e|ing)|construct(?:ing)?|manufactur(?:e|ing)|assembl(?:e|ing)|
      develop(?:ing)?|detonat(?:e|ing)|synthesi[sz](?:e|ing)|acquir(?:e|ing)|obtain(?:ing)?|buy(?:ing)?|
      plant(?:ing)?|smuggl(?:e|ing)|hid(?:e|ing)|weaponi[sz](?:e|ing)) <gap><bomb>\b
    \bweaponi[sz](?:e|ing)\b
    \b(?:commit|plan|carry out|conduct|execute|launch|orchestrate|stage)\w* <gap>(?:terror\w*|mass shooting|
      school shooting|massacre|genocide|ethnic cleansing|bombing|assassination)
    \b(?:shoot up|blow up|bomb|burn down|set fire to) <gap>(?:school|church|mosque|synagogue|building|house|
      hospital|airport|plane|train|mall|office|government|city)
    \bdispers\w+ <gap>(?:biological|chemical|toxic|poison\w*|anthrax)
    \b(?:recruit|join|radicali[sz]e)\w* <gap>(?:isis|al[- ]qaeda|terroris\w+|neo-?nazis?|kkk)\b
    """,
    "drugs": r"""
    \b(?:mak(?:e|ing)|cook(?:ing)?|synthesi[sz](?:e|ing)|manufactur(?:e|ing)|produc(?:e|ing)|brew(?:ing)?|
      extract(?:ing)?|smuggl(?:e|ing)|sell(?:ing)?|deal(?:ing)?|traffic(?:king)?|buy(?:ing)?|get|find|score|
      purchase|grow(?:ing)?) <gap><drug>\b
    <how><gap>(?:(?:sell|deal|smuggle|traffic|hide) <gap>drugs|(?:pass|cheat|beat|fake) <gap>drug test)
    \b(?:drug|roofie|spike) (?:a (?:girl|woman|person)|someone|(?:someone|somebody|her|his|my \w+)(?:'s|
      ’s)? (?:drink|food))
    """,
    "crime": r"""
    <how><gap>(?:steal|rob|shoplift|burgle|burglari[sz]e|hot-?wire|embezzle|launder|counterfeit|forge|extort|
      blackmail|bribe|defraud|scam|con|swindle|pickpocket|vandali[sz]e|mug|smuggle|break into|
      commit (?:\w+ )?(?:fraud|arson|perjury|crimes?|robbery|identity theft|insider trading|a crime)|
      evade (?:taxes|(?:the )?police|the law|arrest)|cheat on (?:my|his|her) taxes|avoid getting caught|
      escape from (?:prison|jail|a \S+ prison))\b
    \b(?:mak(?:e|ing)|print(?:ing)?|creat(?:e|ing)|produc(?:e|ing)|get(?:ting)?|
      obtain(?:ing)?) <gap>(?:counterfeit|fake) (?:money|bills|currency|ids?|passports?|documents|checks|
      prescriptions?|identit\w+)\b
    \blaunder(?:ing)? (?:\w+ )?money|\bmoney launder\w+ (?:scheme|operation|plan)|\bpyramid scheme\b|
      \bponzi scheme (?:that|to)\b
    \bwithout (?:getting|being) (?:caught|detected|traced|discovered)\b|\bwithout (?:drawing|raising|
      arousing) (?:any )?suspicion|\b(?:evad\w+|avoid\w*|undetected by) (?:\w+ )?(?:law enforcement|authorities|
      police detection)\b|\bhow (?:can|do|to) (?:i |we )?illegally\b|\b(?:commit|engage in|
      get away with) <gap>(?:tax evasion|insider trading|identity theft|fraud)\b
    \bwithout leaving (?:any |a )?(?:\w+ )?(?:trace|evidence|bruises|marks|fingerprints)
    \b(?:rob|robbing|burglari[sz]ing) (?:a |the )?(?:bank|store|house|jewel\w+|train|liquor)
    \b(?:insurance|credit card|tax|voter|election|wire) fraud\b(?=.*\b(?:commit|without|how (?:to|do|can)|
      get away))
    """,
    "intrusion": r"""
    <how><gap>(?:hack|crack|ddos|phish|keylog|spy on|eavesdrop|wire-?tap|intercept|bypass|infiltrate|stalk|dox|
      track|deface) <gap>(?:password|account|facebook|instagram|wi-?fi|network|e-?mails?|phones?|computers?|
      websites?|systems?|bank|database|servers?|security|calls|atm|cameras?|server|<person>)\b
    \bhack(?:ing)? (?:into|(?:someone|my \w+|his|her|a \w+)(?:'s)?) ?
    \b(?:creat(?:e|ing)|writ(?:e|ing)|mak(?:e|ing)|develop(?:ing)?|cod(?:e|ing)|spread(?:ing)?|distribut(?:e|
      ing)|design(?:ing)?) <gap>(?:malware|ransomware|key ?loggers?|trojans?|botnets?|spyware|
      (?:\w+ )?phishing (?:e-?mails?|sites?|pages?|campaigns?|scams?)|computer (?:virus|worm)|virus that)\b
    \b(?:steal|sell|leak|find|get|obtain|track down)(?:ing)? <gap>(?:(?:someone|somebody|ex|people|
      stranger)(?:-?\w+)?(?:'s|s') (?:\w+ )?(?:identity|password|address|home|location|social security|
      credit card|personal|private|phone|browsing)|credit card (?:numbers?|info\w*|details)|
      social security numbers?|stolen (?:data|cards?))
    \b(?:install|use|put|hide|access|read|track|monitor|find|see|get)(?:ing)?\b[^.?!]{1,80}\bwithout (?:them|
      him|her|their|his|my \w+|the owner's) (?:knowing|knowledge|permission|consent)\b
    \bcatfish (?:someone|people|a|him|her)|\bdeep ?fakes? (?:of|porn|video of)|\brevenge porn\b|\bup ?skirt
    """,
    "sexual violence": r"""
    \b(?:sex(?:ual(?:ly)?|y)?|erotic\w*|porn\w*|molest\w*|nudes?|naked|seduc\w+|rap(?:e|es|ed|ing)|
      groom(?:ing)?|arous\w+|fetish|incest\w*|orgasm\w*|masturbat\w+|fondl\w+|
      prostitut\w+)\b[^.?!]{0,80}\b<child>\b
    \b<child>\b[^.?!]{0,80}\b(?:sexual(?:ly)?|sexy|erotic\w*|porn\w*|molest\w*|nudes?|naked|seduc\w+|rap(?:e|ed|
      ing)|orgasm\w*|masturbat\w+|fondl\w+|prostitut\w+|have sex|sex slaves?)\b
    \b(?:child|kiddie|underage|teen) (?:porn\w*|sex|erotica)\b|\bloli(?:con)?\b|\bpedophil\w+ (?:ring|network|
      group|site|guide)
    <how><gap>(?:rape|molest|grope|sexually (?:assault|harass|abuse)|force <person> (?:to|into) (?:have |
      having )?sex)\b
    \b(?:force|trick|coerce|manipulate|blackmail|drug)(?:d|ing|s)? <gap>(?:to|into) (?:have |having )?(?:sex|
      sexual|prostitution|sleep)
    \b(?:write|make|tell|create|describe|generate)\w* <gap>(?:rape|incest|gang ?bang) (?:story|scene|fantasy)|
      \b(?:forced|non-?consensual) sex\b|\bi (?:am|'m) a (?:serial )?rapist\b|\bgroom (?:their |my |your |his |
      her )?(?:students?|victims?)
    \bhuman traffick\w+ (?:ring|operation|business|scheme)|\btraffick(?:ing)? (?:humans|women|girls|children|
      people)|\bsex slaves?\b
    """,
    "self-harm": r"""
    <how><gap>(?:kill myself|commit suicide|end (?:my|your|one's) (?:own )?life|hang myself|overdose|
      self[- ]harm|cut myself|starve myself|die painlessly|make myself (?:throw up|vomit|puke)|
      hide (?:my )?(?:cuts|self[- ]harm))
    \b(?:painless|easiest|best|quickest|fastest|least painful) (?:ways?|methods?) (?:of |for |to )?(?:suicide|
      commit(?:ting)? suicide|die|kill myself|end (?:my|your|one's) life)
    \bsuicide (?:methods?|plan|pact|note for)|\bself[- ]harm (?:strateg\w+|methods?|techniques?|tips|
      instructions)|\b(?:encourag|convinc|persuad|tell|get|driv)\w* <gap>to (?:kill (?:them|him|her|
      your)sel(?:f|ves)|commit suicide|self[- ]harm)
    \b(?:pro[- ]?ana|thinspo)\b|\bno[- ]chord\b|\b(?:i want|i am going|i'm going) to (?:kill myself|
      end my life|hang myself)\b
    """,
    "hate": r"""
    \b(?:n[i1]gg(?:ers?|uhs?)|f[a4]gg?ots?|kikes?|sp[i1]cs?|wetbacks?|trann(?:y|ies)|
      towel ?heads?|sand n\w+|porch monkeys?)\b
    \b(?:racist|sexist|homophobic|transphobic|anti-?semitic|misogyn\w+|misandrist|islamophobic|xenophobic|
      offensive|derogatory|dehumani[sz]ing|hateful|racial) (?:jokes?|slurs?|insults?|tweets?|rants?|posts?|
      stories|story|poems?|songs?|speech(?:es)?|things|names?|essay|limericks?|memes?|stereotypes?|tone)\b
    \bstereotypes? (?:about|of|on) (?:black|jew\w*|asian|mexican|muslim|arab|indian|polish|gay|white|african|
      chinese|women|men)\b
    \b(?:jokes?|insults?) (?:about|making fun of|mocking|against) <gap>(?:blacks?|jews?|asians?|mexicans?|
      muslims?|arabs?|gays?|lesbians?|women|disabled|retards?|the holocaust|immigrants?|dead babies)\b
    \bwhy (?:are|do|is) (?:all |most )?(?:(?:black|jewish|asian|mexican|muslim|gay|trans|white|indian) people|
      blacks|jews|mexicans|muslims|women|gays|immigrants) (?:so )?(?:stupid|dumb|lazy|inferior|violent|dirty|
      evil|bad|smell|ruining|greedy|criminals?|commit|steal|terrible)
    \b(?:humiliat|degrad|dehumani[sz]|insult|mock|bully|bullying|harass|ridicul|offend|
      discriminat\w+ against)(?:e|es|ing)? <gap>(?:women|blacks?|jews?|muslims?|gays?|minorit\w+|immigrants?|
      classmate\w*|co-?workers?|fat (?:kids?|people)|disabled|overweight|kids?|someone|people|employees?)\b
    \b(?:inferior race|superior race|master race|white (?:supremac\w+|power) (?:essay|speech|slogans?|
      propaganda|is|manifesto)|iq (?:sorted )?by race|hitler was right|gas the)\b
    \b(?:write|create|generate|make|spread)\w* <gap>(?:propaganda|hate speech|disinformation|misinformation|
      fake news|conspiracy theor\w+)\b
    """,
}


def _rules(text: str) -> list[str]:
    """The rules of a block, continued lines joined."""
    rules: list[str] = []
    for line in text.strip("\n").split("\n"):
        if line.startswith("      "):
            rules[-1] += line[6:]
        elif line.strip():
            rules.append(line[4:])
    return rules


def _with_parts(rule: str) -> str:
    for name, text in _PARTS.items():
        rule = rule.replace(f"<{name}>", "".join(_rules(text)))
    return rule


RULES = {name: tuple(_with_parts(rule) for rule in _rules(text)) for name, text in _RULES.items()}
_COMPILED = {name: re.compile("|".join(f"(?:{p})" for p in patterns), re.I) for name, patterns in RULES.items()}
_LONGEST = 20_000  # characters of a turn that are read: a request that long is a document


def matched(text: str) -> tuple[str, ...]:
    """The categories whose rules a text meets."""
    text = " ".join(text[:_LONGEST].replace("’", "'").split())
    return tuple(name for name, pattern in _COMPILED.items() if pattern.search(text))


def by_rules(conversations: Sequence[Messages]) -> list[Verdict]:
    """Unsafe where any turn of the user meets a rule; never undecided."""
    out = []
    for turns in conversations:
        met = dict.fromkeys(name for turn in turns if turn.role == "user" for name in matched(turn.content))
        out.append(Verdict(not met, tuple(met)))
    return out
