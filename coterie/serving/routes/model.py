"""GET /v1/model: which versions answer, who signed them, and what they promise."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Depends
from starlette.responses import Response

from coterie.errors import PlanError
from coterie.report.card import privacy_card
from coterie.serving import examples
from coterie.serving.conversion import moment
from coterie.serving.deployment import Deployment
from coterie.serving.openapi import gives, operation
from coterie.serving.problems import Refusal
from coterie.serving.routes.bodies import told
from coterie.serving.schemas import ModelOut, ModelsOut
from coterie.serving.security.access import require
from coterie.serving.served import ServedModel

MARKDOWN = "text/markdown"
NO_CARD = "this run holds no facts about its privacy, so there is no card; train it again with this version"


def router(deployment: Deployment) -> APIRouter:
    """The routes of one deployment."""
    routes = APIRouter(
        prefix="/v1/model",
        tags=["model"],
        dependencies=[Depends(require(deployment, "model"))],
        default_response_class=Response,
    )

    @routes.get(
        "",
        **operation(
            "What answers",
            scope="model",
            answers={200: gives("The versions that answer, the champion first.", examples.MODELS, ModelsOut)},
        ),
    )
    async def models() -> Response:
        loaded = deployment.versions.all_loaded()
        versions = [_described(deployment, served, share) for served, share in loaded]
        return told(ModelsOut(answers=deployment.config.answers.privacy, versions=versions))

    @routes.get(
        "/card",
        **operation(
            "The privacy card of the champion",
            scope="model",
            answers={200: gives("Markdown.", examples.CARD, media=MARKDOWN)},
            refusals=(404,),
        ),
    )
    async def card() -> Response:
        try:
            return Response(_card(deployment.versions.current()), media_type=MARKDOWN)
        except PlanError:
            raise Refusal(404, NO_CARD) from None

    return routes


def _described(deployment: Deployment, served: ServedModel, share: float) -> ModelOut:
    version = served.version
    try:
        card = _card(served)
    except PlanError:
        card = NO_CARD
    return ModelOut(
        version=version.id,
        model=version.model,
        run=Path(version.run).name,  # where it is on this machine is no business of a page's
        fingerprint=version.fingerprint,
        signed_at=None if version.signed_at is None else moment(version.signed_at),
        loaded_at=moment(version.loaded_at),
        signer=deployment.versions.signer(version.id),
        allowed=list(version.allowed),
        items=len(served.items.ids),
        share=share,
        privacy=dict(served.run.result.get("privacy") or {}),
        privacy_card=card,
    )


def _card(served: ServedModel) -> str:
    """Without the folder that the run was written to."""
    return privacy_card({**served.run.result, "run": Path(served.version.run).name})
