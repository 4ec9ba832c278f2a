"""The model card: the sections of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019."""

from __future__ import annotations

import importlib

from coterie.models import registry
from coterie.report import reading
from coterie.report.documents.common import about, counted, fact
from coterie.report.documents.facts import Facts
from coterie.report.documents.run_report import clients, comparison
from coterie.report.documents.words import NOT_STATED, Blank, Code, Document, Field, Section, Text, marked, prose, say
from coterie.secure.keys import fingerprint

USES: tuple[Text, ...] = (
    ("Suggest items that complete a basket or fit what a person took before, for people who may ignore them.",),
    ("Rank a shop's own assortment, where in stock and allowed to be sold.",),
    ("Serve clients whose logs are like those that it was trained on.",),
)
NOT_FOR: tuple[Text, ...] = (
    ("Decisions about people: credit, prices for single persons, work, insurance, access to services.",),
    ("Conclusions about a person from their basket: health, religion, sexuality, family, income.",),
    ("Medicines, weapons and whatever else must not be advertised: what is bought together may still be suggested.",),
    ("Items that it has not seen: they cannot be suggested until the next training, unless their text is used.",),
)


def made(facts: Facts) -> Document:
    """The card of the run's model."""
    return Document(
        kind="model-card",
        title=f"Model card: {facts.model or 'model not stated'}",
        lead=_lead(facts),
        sections=(
            _details(facts),
            _use(),
            _factors(facts),
            _metrics(facts),
            _evaluation(facts),
            _training(facts),
            comparison(facts, "quantitative", "Quantitative analyses"),
            clients(facts, "by-client", "Quantitative analyses by client"),
            _ethics(facts),
            _caveats(facts),
        ),
        on=facts.on,
        about=about(facts),
    )


def _lead(facts: Facts) -> Text:
    n = facts.n_parties
    who = "people's devices" if facts.devices else f"{n:,} clients" if n else "clients"
    sentence = (facts.result.get("comparison") or {}).get("sentence")
    found = f"A recommender trained across {who} that do not pool their logs"
    return (f"{found}; {sentence}." if sentence else f"{found}.",)


def _details(facts: Facts) -> Section:
    manifest = facts.manifest
    signer = manifest.get("public_key")
    by = None if signer is None else fingerprint(bytes.fromhex(signer))
    hyper = facts.result.get("hyper_parameters") or {}
    return Section(
        "details",
        "Model details",
        fields=(
            Field("developers", "developed by", (Blank("person or organisation that developed the model"),)),
            fact("name", "model", facts.model, (Code(str(facts.model)),)),
            fact("what", "what it is", _formula(facts.model)),
            fact("hyper_parameters", "hyper-parameters", dict(hyper) or None, _pairs(hyper)),
            fact("tuned", "chosen among", len(facts.result.get("tuning") or []) or None, _tuned(facts)),
            fact("date", "signed on", facts.finished),
            fact("coterie", "made with Coterie", manifest.get("coterie")),
            fact("signer", "signed by the key", by, (Code(str(by)),)),
            fact("rounds", "rounds", facts.privacy.get("rounds")),
            fact("seed", "seed", facts.result.get("seed"), str(facts.result.get("seed"))),
            Field("licence", "licence", (Blank("licence of the model, and how to cite it"),)),
            Field("contact", "questions to", (Blank("contact"),)),
        ),
    )


def _use() -> Section:
    return Section(
        "intended-use",
        "Intended use",
        text=(say("Used here for: {what}.", what=Blank("where and by whom suggestions are shown")),),
        points=(
            *((("For: "), *text) for text in USES),
            *((("Not for: "), *text) for text in NOT_FOR),
        ),
    )


def _factors(facts: Facts) -> Section:
    shown = "the client" if facts.result.get("per_client") and not facts.devices else "none, in this run"
    return Section(
        "factors",
        "Factors",
        fields=(
            Field(
                "relevant",
                "what quality may depend on",
                prose(
                    "the client, its size and assortment; how much is known of a person; how popular an item is; "
                    "season and place; guests or known users",
                ),
            ),
            Field("evaluated", "what figures are broken down by", (shown,)),
            Field(
                "people",
                "groups of people",
                ("Not measured: logs hold no group (sex, age, origin), so nothing is known of differences by group.",),
            ),
        ),
    )


def _metrics(facts: Facts) -> Section:
    result = facts.result
    noise, metrics = result.get("metrics_noise"), reading.headline(result)
    sure: Text = NOT_STATED
    if noise:
        sure = ("Each figure carries noise that is part of the privacy promise; its standard deviation is given.",)
    elif result.get("intervals"):
        settings = facts.config.get("evaluation") or {}
        level = settings.get("confidence")
        text = "Bootstrap over people" if level is None else f"Bootstrap over people, {100 * level:.0f} % intervals"
        sure = (f"{text}; differences between schemes are tested in pairs.",)
    return Section(
        "metrics",
        "Metrics",
        fields=(
            fact("measures", "measures", metrics or None, ", ".join(metrics)),
            Field("variation", "how sure they are", sure),
            Field("thresholds", "thresholds of a decision", ("None: items are ranked, and the best k are shown.",)),
        ),
    )


def _evaluation(facts: Facts) -> Section:
    split, cases = facts.result.get("split") or {}, facts.result.get("cases") or {}
    return Section(
        "evaluation-data",
        "Evaluation data",
        fields=(
            fact("method", "held out by", split.get("method")),
            fact("note", "in counts", split.get("note")),
            fact("cases", "questions asked", cases.get("evaluated")),
            fact("unreachable", "held-out items that training did not know", cases.get("unreachable")),
            Field(
                "why",
                "why these",
                ("What was held out is later than, or apart from, what was trained on, and took part in no choice.",),
            ),
        ),
    )


def _training(facts: Facts) -> Section:
    steps = [str(one["step"]) for one in facts.result.get("cleaning") or []]
    cleaned = fact("cleaning", "cleaned by", steps or None, ", ".join(steps))
    return Section("training-data", "Training data", fields=(*counted(facts), cleaned))


def _ethics(facts: Facts) -> Section:
    promise = facts.privacy.get("statement")
    return Section(
        "ethics",
        "Ethical considerations",
        fields=(fact("privacy", "privacy", promise),),
        points=(
            marked("**People's data.** It was trained on what people did. The privacy card says who could learn what."),
            marked(
                "**Suggestions tell.** An item that is suggested for a basket was taken with it before: by somebody. "
                "Rare pairs can point at people where there is no noise."
            ),
            marked(
                "**Popular items gain.** What is shown is bought, and what is bought is shown. " + _concentration(facts)
            ),
            marked("**Sensitive items.** What is bought together can hint at illness, belief or a pregnancy."),
        ),
    )


def _caveats(facts: Facts) -> Section:
    recommended = (
        "Ask a few real baskets before it goes live, those of small groups of customers among them.",
        "Train again when the assortment or the season changes; old models suggest what is gone.",
        "Leave people a way to see no suggestions that are made from their own history.",
    )
    stated = [str(text) for text in facts.result.get("caveats") or []]
    return Section("caveats", "Caveats and recommendations", points=tuple((text,) for text in (*stated, *recommended)))


def _formula(name: str | None) -> str | None:
    """The first line of the model's own page in the code, as in "EASE: a linear autoencoder ..."."""
    model = registry.models().get(name or "")
    page = None if model is None else importlib.import_module(model.__module__).__doc__
    return None if not page else " ".join(page.strip().split("\n\n")[0].split())


def _pairs(values: dict[str, object]) -> Text:
    found: list[Text] = [(Code(f"{key} = {value}"),) for key, value in values.items()]
    return tuple(piece for at, one in enumerate(found) for piece in ((", ", *one) if at else one))


def _tuned(facts: Facts) -> str:
    return f"{len(facts.result.get('tuning') or []):,} settings, on validation"


def _concentration(facts: Facts) -> str:
    """How much of the assortment the best tens reach, where that was measured."""
    shown = reading.schemes(facts.result)
    scheme = "mix" if "mix" in shown else "federated"
    covered = reading.value(facts.result, scheme, "coverage@10")
    if covered is None:
        return "How much of the assortment is ever suggested was not measured."
    return f"Of the assortment {100 * covered:.0f} % is among the best ten of some question here (`coverage@10`)."
