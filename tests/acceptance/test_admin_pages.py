"""Every page of the admin in a real browser: the policy holds, axe finds nothing serious, nothing sticks out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asgiref.sync import async_to_sync
from playwright.async_api import Browser, BrowserContext, Page
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance.admin_scene import NAME, PASSWORD, fill, pages
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.pages import is_sound, until
from tests.processes import manage

# What the browser reports where a page does what its policy forbids; the page's console has it too.
LISTEN = """
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) =>
        window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}`));
"""
# Of its widget that chooses from many, the signs beside its search boxes; of its dates the two fields without a label.
DJANGOS = ("help-tooltip search-label-icon", "vDateField", "vTimeField")
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 360, "height": 780}


class House:
    """A running router with its database filled; `ids` of what has a page."""

    def __init__(self, cluster: Cluster, ids: dict[str, int]) -> None:
        self.cluster, self.ids = cluster, ids
        self.address = f"http://localhost:{cluster.routers[0].port}"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[House]:
    with running_cluster(tmp_path_factory.mktemp("admin"), django_db_blocker) as cluster:
        manage(cluster.var, "makegroups")
        yield House(cluster, async_to_sync(cluster.ask)(fill))


async def opened(browser: Browser, size: dict[str, int], scheme: str) -> tuple[BrowserContext, Page, list[str]]:
    """A page, and all that goes wrong in it: errors of scripts, of the console (the policy's too), of loading."""
    context = await browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    await context.add_init_script(LISTEN)
    page, wrong = await context.new_page(), list[str]()
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on(
        "console",
        lambda message: (
            wrong.append(f"{page.url}: {message.text}")
            # Without an address: of axe. An error page is one that could not be loaded, to the browser.
            if message.type in ("error", "warning") and message.location["url"] and "status of 40" not in message.text
            else None
        ),
    )
    page.on(
        "response",
        lambda answer: (
            wrong.append(f"{answer.url}: {answer.status}")
            if "/static/" in answer.url and answer.status >= 400
            else None
        ),
    )
    return context, page, wrong


async def sign_in(page: Page, house: House) -> None:
    await page.goto(f"{house.address}/admin/")
    await page.fill("#id_username", NAME)
    await page.fill("#id_password", PASSWORD)
    await page.click("[type=submit]")
    await page.wait_for_selector("#user-tools")


async def is_clean(page: Page, wrong: list[str]) -> None:
    await page.wait_for_load_state("load")
    assert await page.evaluate("window.violations") == []
    assert wrong == []
    await is_sound(page, but_for=DJANGOS)  # after them: axe puts a style of its own into the page


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light"), (PHONE, "dark")])
async def test_every_page_keeps_the_policy_and_can_be_used_by_all(
    house: House, browser: Browser, size: dict[str, int], scheme: str
) -> None:
    """From the sign-in to the sign-out, on a desk and on a phone, light and dark; error pages too."""
    context, page, wrong = await opened(browser, size, scheme)
    for address in ("/admin/", "/no/such/page"):
        await page.goto(house.address + address)
        await is_clean(page, wrong)
    await sign_in(page, house)
    for name, address in pages(house.ids).items():
        answer = await page.goto(f"{house.address}/admin/{address}")
        assert answer is not None
        assert answer.status == (404 if name == "no-such-page" else 200), name
        await is_clean(page, wrong)
    await page.goto(f"{house.address}/admin/")
    await page.click("#logout-form button")
    await page.wait_for_selector("text=Logged out")
    await is_clean(page, wrong)
    await context.close()


async def test_pages_that_ask_before_they_act_do_too(house: House, browser: Browser) -> None:
    """Those behind an action; and the lists' own scripts: select all, choose from a group's permissions."""
    context, page, wrong = await opened(browser, DESK, "light")
    await sign_in(page, house)
    for address, action, words in (
        ("replicas/replica/", "delete_selected", "go on to their end"),
        ("proxy/session/", "disconnect", "Reaches the client"),
    ):
        await page.goto(f"{house.address}/admin/{address}")
        await page.check("#action-toggle")
        await page.select_option("select[name=action]", action)
        await page.click("button[name=index]")
        await page.wait_for_selector(f"text={words}")
        await is_clean(page, wrong)
    await page.goto(f"{house.address}/admin/auth/group/{house.ids['group']}/change/")
    await page.wait_for_selector(".selector-chosen")
    await is_clean(page, wrong)
    await context.close()


async def test_a_token_that_is_missing_gets_a_page_of_ours(house: House, browser: Browser) -> None:
    """The form stood open while the browser lost its cookies."""
    context, page, wrong = await opened(browser, PHONE, "light")
    await page.goto(f"{house.address}/admin/")
    await context.clear_cookies()
    await page.fill("#id_username", NAME)
    await page.fill("#id_password", PASSWORD)
    await page.click("[type=submit]")
    await page.wait_for_selector("text=This form was not accepted")
    await is_clean(page, wrong)
    await context.close()


async def test_the_player_and_the_dashboard_keep_the_policy(house: House, browser: Browser) -> None:
    """Every page of the router, not the admin's alone."""
    context, page, wrong = await opened(browser, DESK, "light")
    await sign_in(page, house)
    for address in ("/", "/dashboard/", f"/dashboard/replicas/{house.ids['ill']}/"):
        await page.goto(house.address + address)
        await page.wait_for_load_state("load")
        assert await page.evaluate("window.violations") == []
        assert wrong == []
    await context.close()


async def test_one_acts_on_a_replicas_own_page(house: House, browser: Browser) -> None:
    """A click drains it, says what it keeps, and leads back; its history says who it was."""
    context, page, wrong = await opened(browser, DESK, "light")
    await sign_in(page, house)
    one = f"{house.address}/admin/replicas/replica/{house.ids['ill']}"
    await page.goto(f"{one}/change/")
    await page.click(".acts button:has-text('Drain')")
    await page.wait_for_selector("text=draining, keeps")
    assert page.url == f"{one}/change/"
    await page.goto(f"{one}/history/")
    assert "State: active → draining." in await page.inner_text("#change-history")
    await page.goto(f"{one}/change/")
    await page.click(".acts button:has-text('Activate')")

    async def active() -> bool:
        return await page.locator(".acts button:has-text('Drain')").count() == 1

    await until(active, "it may be drained again")
    assert wrong == []
    await context.close()
