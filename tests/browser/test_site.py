"The site as a reader has it: opened from disk, with no network, wide and narrow, light and dark"
import ast, html, json, os, re, subprocess, sys
from pathlib import Path
from urllib.parse import unquote, urlparse
import pytest

ROOT = Path(__file__).parents[2]
BOOKS = {p.stem:json.loads(p.read_text(encoding='utf-8'))['cells'] for p in sorted((ROOT/'nbs').glob('*.ipynb'))}
PAGES = sorted({*BOOKS, 'index', 'api'})

@pytest.fixture(scope='session')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('site')
    env = {**os.environ, 'GITHUB_REPOSITORY':'owner/u1nb'}
    p = subprocess.run([sys.executable, ROOT/'nbs/site/build.py', out], capture_output=True, text=True, env=env)
    assert p.returncode==0, p.stderr[-2000:]
    return out

@pytest.fixture
def tab(browser):
    page = browser.new_page(viewport=dict(width=1280, height=900))
    page.trouble = []
    page.on('console', lambda m: page.trouble.append(m.text) if m.type in ('error','warning') else None)
    page.on('pageerror', lambda e: page.trouble.append(str(e)))
    page.on('request', lambda r: page.trouble.append(r.url) if not r.url.startswith(('file:','data:')) else None)
    page.on('requestfailed', lambda r: page.trouble.append(r.url[:200]))
    yield page
    page.close()

#: text that ends outside the window, and boxes that hide a part of it; what scrolls alone is no loss
CUT = """() => {
  const x = e => getComputedStyle(e).overflowX, out = [], range = document.createRange()
  const alone = e => e && e !== document.body && (['auto','scroll'].includes(x(e)) || alone(e.parentElement))
  if (document.documentElement.scrollWidth > innerWidth) out.push('the page is wider than the window')
  for (const e of document.body.querySelectorAll('*'))
    if (e.scrollWidth > e.clientWidth+1 && ['hidden','clip'].includes(x(e))) out.push('hidden in ' + e.outerHTML.slice(0, 80))
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let n; n = texts.nextNode();) {
    range.selectNodeContents(n)
    const box = range.getBoundingClientRect()
    if (box.right > innerWidth+1 && n.data.trim() && !alone(n.parentElement)) out.push('cut off: ' + n.data.trim().slice(0, 60))
  }
  return out.slice(0, 5)
}"""

IMAGES = "() => [...document.images].map(i => [i.complete && i.naturalWidth > 1, i.alt])"

#: mathematics that a reader would see as source
RAW = r"""() => {
  const m = document.querySelector('main').cloneNode(true)
  m.querySelectorAll('code,pre,.highlight,.scroll').forEach(e => e.remove())
  const raw = m.textContent.match(/\$[^$\n]+\$/g) || []
  document.querySelectorAll('math').forEach(e => { if (e.textContent.includes('\\') || e.getBoundingClientRect().height < 4) raw.push(e.textContent) })
  return raw
}"""

#: the lowest contrast of any text with what stands behind it
CONTRAST = r"""() => {
  const of = c => c.match(/[\d.]+/g).map(Number)
  const light = c => { const [r,g,b] = c.map(v => (v /= 255) <= .04045 ? v/12.92 : ((v+.055)/1.055)**2.4); return .2126*r + .7152*g + .0722*b }
  let worst = [99, '']
  const kinds = new Map([...document.body.querySelectorAll('*')].map(e => [[e, e.parentElement].map(o => o.tagName + o.className), e]).map(([k, e]) => [k.join(), e]))
  for (const e of kinds.values()) {
    if (e.closest('.skip') || !e.getClientRects().length || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue
    let p = e, back
    while (p && !(back = of(getComputedStyle(p).backgroundColor), back.length < 4 || back[3])) p = p.parentElement
    const [a, b] = [light(of(getComputedStyle(e).color).slice(0, 3)), light(p ? back.slice(0, 3) : [255,255,255])].sort((x, y) => y - x), ratio = (a+.05)/(b+.05)
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 90)]
  }
  return worst
}"""

@pytest.mark.parametrize('stem', PAGES)
def test_page(stem, site, tab):
    tab.goto((site/f'{stem}.html').as_uri())
    for width in (1280, 390):
        tab.set_viewport_size(dict(width=width, height=900))
        assert tab.evaluate(CUT)==[], width
    images = tab.evaluate(IMAGES)
    assert all(shown for shown,_ in images), 'a figure is missing'
    assert len(images)>=sum('image' in str(o.get('data', {}).keys()) for c in BOOKS.get(stem, []) for o in c.get('outputs', ()))
    assert tab.evaluate(RAW)==[]
    if any(re.search(r'\$[^$]+\$', re.sub('`[^`]*`', '', ''.join(c['source']))) for c in BOOKS.get(stem, []) if c['cell_type']=='markdown'):
        assert tab.locator('math').count()
    assert tab.locator('h1').count()==1
    for scheme in ('light','dark'):
        tab.emulate_media(color_scheme=scheme)
        ratio,where = tab.evaluate(CONTRAST)
        assert ratio>=4.5, (scheme, ratio, where)
    assert tab.trouble==[]
    assert [i for i,(_,alt) in enumerate(images) if len(alt)<4 or alt.startswith('No description')]==[], 'figures without alt text'

def test_links(site):
    "Each leads to a page that is there and to an anchor in it, or out by https"
    text = {p.name:p.read_text(encoding='utf-8') for p in site.glob('*.html')}
    ids = {name:set(re.findall(r' id="([^"]+)"', t)) for name,t in text.items()}
    broken = []
    for name,t in text.items():
        for url in map(html.unescape, re.findall(r'<a\b[^>]*?href="([^"]*)"', t)):
            u = urlparse(url)
            at = u.path or name
            if u.scheme!='https' and (u.scheme or not (site/at).is_file() or u.fragment and unquote(u.fragment) not in ids[at]): broken.append((name, url))
    assert sorted(set(broken))==[] and sorted(ids)==[f'{s}.html' for s in PAGES]

def test_colab_and_binder(site):
    "Colab opens a copy that installs itself; the copy is otherwise the notebook"
    text = (site/'10_energy.html').read_text(encoding='utf-8')
    assert 'colab.research.google.com/github/owner/u1nb/blob/gh-pages/notebooks/10_energy.ipynb' in text
    assert 'mybinder.org/v2/gh/owner/u1nb/HEAD?labpath=nbs%2F10_energy.ipynb' in text
    first,*rest = json.loads((site/'notebooks/10_energy.ipynb').read_text(encoding='utf-8'))['cells']
    assert 'git clone -q --depth 1 https://github.com/owner/u1nb repo' in ''.join(first['source'])
    assert [c['source'] for c in rest]==[c['source'] for c in BOOKS['10_energy']]

def test_every_public_name_has_a_section(site):
    text = (site/'api.html').read_text(encoding='utf-8')
    names = {n for p in (ROOT/'u1nb').glob('*.py') for o in ast.parse(p.read_text(encoding='utf-8')).body
             if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '')=='__all__' for n in ast.literal_eval(o.value)}
    assert len(names)>100 and [n for n in sorted(names) if f'<h3 id="{n}"' not in text]==[]
    section = re.search(r'id="plane".*?<h3', text, re.S)[0]
    for said in ('rows of the map','int | None','None','each (H,W) float64','Coordinates of the sites'): assert said in section

def test_previous_and_next_pass_every_page(site):
    at,seen = 'index.html',[]
    while at:
        seen.append(at)
        text = (site/at).read_text(encoding='utf-8')
        back,at = (m and m[1] for m in (re.search(rf'rel="{r}" href="([^"]+)"', text) for r in ('prev','next')))
        assert back==(seen[-2] if seen[1:] else None) and len(seen)<=len(PAGES)
    assert sorted(seen)==[f'{s}.html' for s in PAGES]

def test_search(site, tab):
    tab.goto((site/'index.html').as_uri())
    tab.fill('#search', 'order parameter')
    assert 1<=tab.locator('#found li').count()<=20
    tab.fill('#search', 'order_parameter')
    tab.press('#search', 'Enter')
    assert tab.url.endswith('api.html#order_parameter')
    tab.fill('#search', 'qqqq')
    assert tab.inner_text('#found')=='Nothing found'
    tab.press('#search', 'Escape')
    assert tab.locator('#found').is_hidden() and tab.trouble==[]

def test_code_is_folded_in_experiments(site, tab):
    tab.goto((site/'50_pretrained_energy.html').as_uri())
    code = tab.locator('details .highlight').first
    assert code.is_hidden()
    tab.locator('summary').first.click()
    assert code.is_visible()

def test_print(site, tab):
    "On paper there is the text and nothing to click"
    tab.goto((site/'10_energy.html').as_uri())
    tab.emulate_media(media='print')
    assert tab.locator('header').is_hidden() and tab.locator('#contents').is_hidden() and tab.locator('main h1').is_visible()
    assert len(tab.pdf())>50_000
