"The explorer in JupyterLab, in a browser: a control is moved, and the figure of the page follows"
import os, shutil, socket, subprocess, sys, time, urllib.request
from pathlib import Path
import pytest

ROOT = Path(__file__).parents[2]
FLAGS = ['--no-sandbox','--disable-gpu','--disable-background-networking',
         '--use-fake-device-for-media-stream','--use-fake-ui-for-media-stream']    # a camera that is not there
PATIENCE = 240_000                                                                 # ms, for a busy machine

def chromium():
    "Where a Chromium is; without one these tests fail"
    found = next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome'))), None)
    assert found, 'no chromium, chromium-browser or google-chrome on PATH; apt install chromium'
    return found

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab beside a copy of the notebook; its address"
    here = tmp_path_factory.mktemp('lab')
    shutil.copy(ROOT/'nbs/40_explore.ipynb', here)
    (here/'jupyter_lab_config.json').write_text('{"LabApp": {"news_url": null}}')    # no question pops up
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = {k:v for k,v in os.environ.items() if k not in ('U1NB_DATA','MPLBACKEND')}
    env |= dict(PYTHONPATH=str(ROOT), JUPYTER_CONFIG_DIR=str(here), TQDM_DISABLE='1')
    words = ['--no-browser','--allow-root',f'--port={port}','--IdentityProvider.token=',
             '--ServerApp.ip=127.0.0.1',f'--ServerApp.root_dir={here}',
             '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    log = (here/'lab.log').open('w')
    server = subprocess.Popen([sys.executable,'-m','jupyterlab',*words], cwd=here, env=env, stdout=log, stderr=log)
    address = f'http://127.0.0.1:{port}'
    try:
        for _ in range(240):
            assert server.poll() is None, (here/'lab.log').read_text()[-2000:]
            try: urllib.request.urlopen(f'{address}/api', timeout=5); break
            except OSError: time.sleep(1)
        yield address
    finally:
        server.terminate()
        server.wait(60)

def run(page, code):
    "Run the cell with this code; again where JupyterLab was not ready and the key was lost"
    cell = page.locator('.jp-CodeCell').filter(has_text=code).first
    for _ in range(20):
        cell.scroll_into_view_if_needed()
        cell.locator('.cm-content').first.click()
        page.keyboard.press('Shift+Enter')
        page.wait_for_timeout(3000)
        if cell.locator('.jp-InputPrompt').first.inner_text().strip() not in ('','[ ]:'): return
    raise AssertionError(f'JupyterLab does not run {code!r}')

@pytest.fixture(scope='module')
def page(lab):
    "The notebook, with the cells of the explorer run"
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport=dict(width=1280, height=1000))
        page.set_default_timeout(PATIENCE)
        page.goto(f'{lab}/lab/tree/40_explore.ipynb')
        for code in ('import explore','display(explore())'): run(page, code)
        page.locator('.u1nb-said').filter(has_text='κ').first.wait_for()
        yield page
        browser.close()

def figure(page):
    "The explorer's figure once it rests, what it says, and the pixels of it that the page shows"
    img,said = page.locator('img.u1nb-figure').first,''
    while said!=(now := page.locator('.u1nb-said').first.inner_text()):
        said = now
        page.wait_for_timeout(2000)
    img.scroll_into_view_if_needed()
    return img,said,img.screenshot()

def follows(page, said, was):
    "Wait until the sentence is another one; the pixels must be others too"
    page.wait_for_function('said => document.querySelector(".u1nb-said").innerText !== said', arg=said)
    assert figure(page)[2]!=was

def control(page, kind, name): return page.locator(f'.widget-{kind}').filter(has_text=name).first

def test_what_is_not_moved_stays(page):
    was = figure(page)[1:]
    page.wait_for_timeout(2000)
    assert figure(page)[1:]==was

def test_a_slider_turns_the_picture(page):
    _,*was = figure(page)
    control(page, 'slider', 'turn').locator('.noUi-handle').focus()
    for _ in range(4): page.keyboard.press('ArrowRight')
    follows(page, *was)

def test_the_picture_is_dragged(page):
    img,*was = figure(page)
    box = img.bounding_box()
    x,y = box['x']+.18*box['width'],box['y']+.3*box['height']
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x+60, y-30, steps=4)
    page.mouse.up()
    follows(page, *was)
    right,up = (float(control(page, 'slider', k).locator('.widget-readout').inner_text()) for k in ('right','up'))
    assert right>.2 and up>.1

def test_the_camera_gives_a_picture(page):
    _,*was = figure(page)
    page.get_by_role('button', name='Camera').click()
    page.get_by_role('button', name='Take the picture').click()
    follows(page, *was)
    select = control(page, 'dropdown', 'picture').locator('select')
    assert select.evaluate('s => s.selectedOptions[0].text')=='camera'
