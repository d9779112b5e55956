"""Requests that others send to us."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NoReturn, Optional, Union

from . import _option
from ._dag import Source
from ._source import OWN, declare


def _secrets(value: Any) -> List[str]:
    """One secret, or two while one takes over from the other."""
    secrets = [value] if isinstance(value, str) else value
    if not isinstance(secrets, (list, tuple)) or not all(isinstance(one, str) and one for one in secrets):
        raise ValueError('write a text, such as "env:HOOK_SECRET", or a list of two')
    if not 1 <= len(secrets) <= 2:
        raise ValueError("write one secret, or two: the old one and the new one")
    return list(secrets)


_WEBHOOK = {"secret": ("secrets", _secrets)}


def webhook(
    *,
    secret: Union[str, List[str], None] = None,
    codec: Optional[str] = None,
    schema: Union[Dict[str, Any], str, None] = None,
    schema_registry: Optional[str] = None,
    validator: Optional[Callable[..., Any]] = None,
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """Every request to `/hooks/{dag}/{source}`, plain or as CloudEvents; answered once it is durable.

    With `secret`, requests have to be signed (HMAC-SHA256, Standard Webhooks): `"secret:NAME"`, `"env:NAME"` and
    `"file:PATH"` say where it stands, any other text is the secret itself; two in a list are both
    active. The body of a plain request has to be JSON unless `codec` says otherwise; `codec`, `schema` and
    `schema_registry` as for `kafka`, and a request that does not pass is answered with 422. The source's id
    is `name`, else `webhook`.
    """
    owner = "webhook()"
    content = {"codec": codec, "schema": schema, "schema_registry": schema_registry, "validator": validator}
    own = {"order": order, "freshness": freshness, "rate_limit": rate_limit}
    given = {**own, "secret": secret, **content, **unknown}
    fields = _option.convert(owner, {**OWN, **_WEBHOOK}, given)
    config = {name: fields.pop(name) for name in ("secrets",) if name in fields}
    return declare("webhook", config, name, fields)
