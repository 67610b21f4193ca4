"Packaging: everything is read from settings.ini"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
cfg = ConfigParser(delimiters=['='], inline_comment_prefixes=None)
cfg.read(here/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']

def lines(key): return [o.strip() for o in cfg[key].splitlines() if o.strip()]

extras = {k: lines(f'{k}_requirements') for k in ('offline', 'faiss', 'hub', 'loops')}
extras['dev'] = sum(extras.values(), []) + lines('dev_requirements')
extras |= {k: lines(f'{k}_requirements') for k in ('lite', 'site', 'browser')}   # `make test` needs none of them

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], license=cfg['license'], python_requires=f">={cfg['min_python']}",
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    packages=find_packages(include=[cfg['lib_path'], f"{cfg['lib_path']}.*"]),
    install_requires=lines('requirements'), extras_require=extras,
    entry_points=dict(console_scripts=lines('console_scripts')), zip_safe=False,
)
