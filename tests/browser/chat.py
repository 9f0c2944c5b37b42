"""The chat as people meet it: by roles and names."""

from __future__ import annotations

import re

from playwright.async_api import Locator, Page, expect


class Chat:
    """The chat in an English browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.question = page.get_by_role("textbox", name="Your question")
        self.answers = page.get_by_role("article", name="Answer")
        self.questions = page.get_by_role("article", name="You")
        self.send = page.get_by_role("button", name="Send", exact=True)
        self.stop = page.get_by_role("button", name="Stop (Escape)")
        self.alert = page.get_by_role("alert")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def conversation(self, title: str) -> Locator:
        """The conversation's line in the list."""
        listed = self.page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
        return listed.filter(has=self.page.get_by_role("button", name=title, exact=True))

    async def ask(self, text: str) -> Locator:
        """Ask, and return the article of the answer, which may be still to come."""
        before = await self.answers.count()
        await self.question.fill(text)
        await self.question.press("Enter")
        answer = self.answers.nth(before)
        await expect(answer).to_be_attached()
        return answer

    async def answered(self, text: str) -> Locator:
        """The article of the whole answer."""
        answer = await self.ask(text)
        await expect(answer).to_have_attribute("aria-busy", "false")
        return answer

    async def set(self, **fields: str) -> None:
        """Fill fields of the settings, by the first words of their labels."""
        await self.page.get_by_role("button", name="Settings").click()
        dialog = self.page.get_by_role("dialog", name="Settings")
        for label, value in fields.items():
            field = dialog.get_by_label(re.compile(f"^{label.replace('_', ' ')}"))
            if await field.evaluate("field => field.tagName") == "SELECT":
                await field.select_option(value)
            else:
                await field.fill(value)
        await dialog.get_by_role("button", name="Save").click()
        await expect(dialog).to_be_hidden()
