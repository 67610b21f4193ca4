"Debian's Chromium through Playwright: where the browser is missing, tests fail, they do not skip"
import shutil
import pytest

@pytest.fixture(scope='session')
def browser():
    from playwright.sync_api import sync_playwright
    names = ('chromium','chromium-browser','google-chrome')
    path = next(filter(None, map(shutil.which, names)), None)
    assert path, f'no browser: one of {", ".join(names)} is needed (Debian: apt install chromium)'
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=['--no-sandbox','--disable-gpu','--disable-background-networking'])
        yield b
        b.close()
