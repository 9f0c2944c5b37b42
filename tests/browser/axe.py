"""axe-core's rules for people who do not see, hear or point."""

from __future__ import annotations

from importlib.resources import files

from playwright.async_api import Page

_AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


async def violations(page: Page) -> list[str]:
    """What breaks a rule in the page as it is now: the rule, and the first elements that break it."""
    await page.evaluate(_AXE)
    found = await page.evaluate("axe.run()")
    return [
        f"{one['id']}: {one['help']}: {[(node['html'][:200], node['failureSummary']) for node in one['nodes'][:5]]}"
        for one in found["violations"]
    ]
