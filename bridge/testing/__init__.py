"""The contract kit: the tests that every plugin passes, ours and third parties'. Needs `passerelle[testing]`.

    class TestDesk(Contract):
        plugin = Desk            # the connector's class
        tool = DeskTool          # how the kit plays a person who works with the tool: see `Tool`
        page = "README.md"       # where every configuration key is explained

The kit runs the plugin in a bridge that is real but for the homeserver, with a proxy between it and your server that
refuses, breaks, delays and garbles. Which tests there are depends on what the plugin overrides of `Connector` (and the
tool of `Tool`); a test of what a plugin cannot do does not exist for it. docs/plugins.md shows all of it at work.
"""

from __future__ import annotations

import pytest

_PARTS = ("contract", "arriving", "leaving", "carrying", "looking", "seeing")
pytest.register_assert_rewrite(*(f"bridge.testing.{part}" for part in _PARTS))

from bridge.testing.arriving import Arriving  # noqa: E402 - asserts are rewritten in what is imported from here on
from bridge.testing.carrying import Carrying  # noqa: E402
from bridge.testing.faults import TROUBLES  # noqa: E402
from bridge.testing.looking import Looking  # noqa: E402
from bridge.testing.office import Office  # noqa: E402
from bridge.testing.seeing import Seeing  # noqa: E402
from bridge.testing.tool import Tool  # noqa: E402


class Contract(Arriving, Carrying, Looking, Seeing):
    """Subclass it as `Test…` and name `plugin`, `tool` and `page`."""


__all__ = ["TROUBLES", "Contract", "Office", "Tool"]
