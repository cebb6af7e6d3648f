"""HTML pages in one file: no network, and no server but one that sent them. Their templates extend
web/page.html."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

WEB = Path(__file__).resolve().parent / "web"
# Browsers differ in whether the files beside a local page are its own: so file:, too.
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file: data:; "
    "style-src 'unsafe-inline'; script-src "
)


def render(template: Path, scripts: Sequence[str], **values: Any) -> str:
    """The page of a template. Its policy: no script but these runs, even if one got into a text,
    and nothing comes from outside. A page with a value `served` may ask its own server."""
    loader = FileSystemLoader([template.parent, WEB])
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True)
    pages.policies["json.dumps_kwargs"] = {"sort_keys": False}
    pages.globals["asset"] = lambda name: Markup(loader.get_source(pages, name)[0])
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    policy = POLICY + " ".join(f"'sha256-{digest}'" for digest in hashes)
    policy += "; connect-src 'self'" * bool(values.get("served"))
    return pages.get_template(template.name).render(
        policy=policy, scripts=[Markup(script) for script in scripts], **values
    )
