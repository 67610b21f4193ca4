"Every figure that a notebook stores can be heard: it carries alt text"
import json
from pathlib import Path

def test_every_stored_figure_has_alt_text():
    silent = []
    for p in sorted((Path(__file__).parents[1]/'nbs').glob('*.ipynb')):
        for c in json.loads(p.read_text(encoding='utf-8'))['cells']:
            for o in c.get('outputs', ()):
                for kind in o.get('data', {}):
                    if kind.startswith('image/') and len(o['metadata'].get(kind, {}).get('alt', ''))<8: silent.append((p.stem, c['id']))
    assert silent==[], f'{len(silent)} figures without alt text'
