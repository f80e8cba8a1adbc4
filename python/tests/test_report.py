# SPDX-License-Identifier: Apache-2.0
"""`python -m qvlmem report`: a page without anything beside it, of what `run --json` printed."""

import html.parser
import json
import re

import pytest

from qvlmem.__main__ import main

pytest.importorskip('matplotlib')
pytest.importorskip('transformers')

from qvlmem.commands import run  # noqa: E402
from qvlmem.models import sides  # noqa: E402


@pytest.fixture(scope='module')
def report():
    parser = run.argparse.ArgumentParser()
    run.add_arguments(parser)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sides, 'in_fresh_process', lambda function, *arguments: function(*arguments))
        return run.measure(parser.parse_args(['--pages', '2', '--max-error', '0.03']))


@pytest.fixture
def page(report, tmp_path):
    (tmp_path / 'run.json').write_text(json.dumps(report))
    assert main(['report', str(tmp_path / 'run.json'), '--output', str(tmp_path / 'page.html')]) == 0
    return (tmp_path / 'page.html').read_text()


class Checker(html.parser.HTMLParser):
    VOID = {'meta', 'br', 'img', 'link'}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_one_whole_page(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == [] and page.count('<svg') == 2
    # Names of XML namespaces and of the format are all that looks like an address.
    addresses = set(re.findall(r'(?:src|href)="([^"]*)"', page))
    assert all(address.startswith('#') for address in addresses)


def test_it_shows_the_figures(page, report):
    for kind, figures in report['kinds'].items():
        assert f'<td>{kind.replace("_", " ")}</td><td>{figures["tensors"]}</td>' in page
    assert f"{100 * report['accuracy']['held']:.2f} % held" in page
    assert report['questions'][0]['plain']['text'] in page


def test_two_pages_of_the_same_figures_are_the_same(page, report, tmp_path):
    assert main(['report', str(tmp_path / 'run.json'), '--output', str(tmp_path / 'again.html')]) == 0
    assert (tmp_path / 'again.html').read_text() == page


def test_what_a_model_says_is_no_markup(report, tmp_path):
    changed = json.loads(json.dumps(report))
    changed['questions'][0]['held']['text'] = '<script>alert(1)</script>'
    (tmp_path / 'run.json').write_text(json.dumps(changed))
    assert main(['report', str(tmp_path / 'run.json'), '--output', str(tmp_path / 'page.html')]) == 0
    assert '<script' not in (tmp_path / 'page.html').read_text()


@pytest.mark.parametrize('text, reason', [(None, 'cannot read'), ('not json', 'is not JSON'),
                                          ('{}', 'is not what'), ('[1]', 'is not what')])
def test_a_file_of_something_else_is_refused(text, reason, tmp_path, capsys):
    path = tmp_path / 'run.json'
    if text is not None:
        path.write_text(text)
    assert main(['report', str(path), '--output', str(tmp_path / 'page.html')]) == 1
    printed = capsys.readouterr()
    assert printed.out == '' and reason in printed.err and str(path) in printed.err
    assert not (tmp_path / 'page.html').exists()


def test_a_page_that_cannot_be_written_is_named(report, tmp_path, capsys):
    (tmp_path / 'run.json').write_text(json.dumps(report))
    target = tmp_path / 'missing' / 'page.html'
    assert main(['report', str(tmp_path / 'run.json'), '--output', str(target)]) == 1
    assert capsys.readouterr().err == f'qvlmem report: error: cannot write {target}: No such file or directory\n'
