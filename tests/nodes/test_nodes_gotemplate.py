"""Go's templates over JSON values: what they print, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fastkube.clock import ManualClock
from fastkube.nodes.gotemplate import Template, TemplateError
from fastkube.nodes.gotemplate_print import sprintf, text_of
from fastkube.nodes.template_functions import functions

FUNCTIONS = functions(ManualClock(1_700_000_000.0), random.Random(1))
DATA: dict[str, Any] = {
    "name": "a",
    "count": 3,
    "zero": 0,
    "on": True,
    "none": None,
    "list": [{"n": 1}, {"n": 2}, {"n": 3}],
    "map": {"y": 2, "x": 1, "dotted/key": "v"},
    "empty": [],
}


def render(text: str) -> str:
    return Template(text, FUNCTIONS).render(DATA)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain", "plain"),
        ("{{ .name }}", "a"),
        ("{{.count}} {{.on}} {{.none}} {{.absent}} {{.absent.deeper}}", "3 true <no value> <no value> <no value>"),
        ("{{ .list }}{{ .map }}", "[map[n:1] map[n:2] map[n:3]]map[dotted/key:v x:1 y:2]"),
        ("a {{- 1 -}} b", "a1b"),
        ("a {{/* nothing */}} b {{- /* nothing */ -}} c", "a  bc"),
        ('{{ "a\\tb\\u00e9" }}{{ `raw\\t` }}{{ 0x10 }}{{ 1.5 }}{{ \'a\' }}{{ -2 }}', "a\tb\u00e9raw\\t161.597-2"),
        ("{{ true }}{{ false }}", "truefalse"),
        # variables live until the end of their block; = reaches outwards
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ $y }}{{ end }}{{ $x }}", "32"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", "21"),
        ("{{ with $x := .name }}{{ $x }}{{ . }}{{ $.count }}{{ end }}", "aa3"),
        ("{{ $.name }}{{ $m := .map }}{{ $m.x }}", "a1"),
        # if, else if, with, else with
        ("{{ if .zero }}a{{ else if .empty }}b{{ else if .name }}c{{ else }}d{{ end }}", "c"),
        ("{{ with .absent }}a{{ else with .name }}{{ . }}{{ else }}c{{ end }}", "a"),
        ("{{ with .absent }}a{{ else }}{{ .name }}{{ end }}", "a"),
        # range
        ("{{ range .list }}{{ .n }}{{ end }}", "123"),
        ("{{ range $i, $e := .list }}{{ $i }}{{ $e.n }},{{ end }}", "01,12,23,"),
        ("{{ range $e := .list }}{{ $e.n }}{{ end }}", "123"),
        ("{{ range $k, $v := .map }}{{ $k }}={{ $v }} {{ end }}", "dotted/key=v x=1 y=2 "),
        ("{{ range .empty }}x{{ else }}none{{ end }}{{ range .absent }}x{{ end }}", "none"),
        ("{{ range 3 }}{{ . }}{{ end }}", "012"),
        ("{{ range .list }}{{ if eq .n 2 }}{{ continue }}{{ end }}{{ .n }}{{ end }}", "13"),
        ("{{ range .list }}{{ if eq .n 2 }}{{ break }}{{ end }}{{ .n }}{{ end }}", "1"),
        # pipes, parentheses, calls
        ('{{ .name | printf "%s-%s" "x" }}', "x-a"),
        ('{{ printf "%d" (len .list) | printf "%s!" }}', "3!"),
        ("{{ (index .list 1).n }}{{ index .map \"dotted/key\" }}", "2v"),
        ("{{ index .map \"absent\" }}", "<no value>"),
        ("{{ slice .name 0 1 }}{{ len .map }}", "a3"),
        ("{{ and .name .count }}{{ and .zero .absent.x }}{{ or .zero .name }}{{ or .zero false }}", "30afalse"),
        ("{{ not .zero }}{{ eq .count 3 }}{{ eq .name \"b\" \"a\" }}{{ ne .name \"a\" }}", "truetruetruefalse"),
        ("{{ eq .absent \"x\" }}{{ eq .none nil }}{{ eq (printf \"%v\" .count) \"3\" }}{{ eq .count \"3\" }}",
         "falsetruetruetrue"),
        ("{{ lt 1 2 }}{{ le 2 2 }}{{ gt 1 2 }}{{ ge \"b\" \"a\" }}", "truetruefalsetrue"),
        ("{{ print 1 \"a\" }}{{ println \"b\" 2 }}", "1ab 2\n"),
        # templates of templates
        ('{{ define "t" }}<{{ .n }}{{ $.n }}>{{ end }}{{ range .list }}{{ template "t" . }}{{ end }}', "<11><22><33>"),
        ('{{ template "t" }}{{ define "t" }}{{ . }}{{ end }}', "<no value>"),
        ('{{ block "t" .name }}{{ . }}{{ end }}', "a"),
        ('{{ template "t" dict "a" .name "b" $ }}{{ define "t" }}{{ .a }}{{ .b.count }}{{ end }}', "a3"),
        # kwok's and sprig's
        ('{{ Now | Quote }} {{ Quote 5 }} {{ Quote "a\\"b" }} {{ Quote .map.x }}',
         '"2023-11-14T22:13:20Z" "5" "a\\"b" "1"'),
        ("x:{{ YAML .map 1 }}", "x:\n  dotted/key: v\n  x: 1\n  \"y\": 2\n  "),
        ('{{ .absent | default "d" }}{{ default 1 .count }}{{ ternary "y" "n" .on }}{{ coalesce .none .zero .name }}',
         "d3ya"),
        ("{{ add 1 2 3 }} {{ add1 \"4\" }} {{ sub 5 2 }} {{ mul 2 3 }} {{ div 7 2 }} {{ div -7 2 }} {{ mod -7 2 }}",
         "6 5 3 6 3 -3 -1"),
        ("{{ int (ceil (divf 7 2)) }}{{ max 1 5 2 }}{{ min 4 2 }}{{ atoi \"12\" }}{{ until 3 }}", "45212[0 1 2]"),
        ('{{ upper "a" }}{{ trimPrefix "x" "xa" }}{{ replace "a" "b" "aa" }}{{ join "," (list 1 2) }}', "Aabb1,2"),
        ('{{ hasKey .map "x" }}{{ get .map "y" }}{{ has 2 (list 1 2) }}{{ contains "b" "abc" }}', "true2truetrue"),
        ("{{ len NodeConditions }}{{ (index NodeConditions 0).type }}", "5Ready"),
    ],
)  # fmt: skip
def test_template(text: str, printed: str) -> None:
    assert render(text) == printed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ nothing . }}", "function 'nothing' not defined"),
        ("{{ .a | nothing }}", "function 'nothing' not defined"),
        ("{{ if .a }}", "no end"),
        ("{{ end }}", "unexpected {{end}}"),
        ("{{ else }}", "unexpected {{else}}"),
        ("{{ .a", "unclosed action"),
        ("{{ }}", "missing value"),
        ("{{ (.a }}", "unclosed left paren"),
        ("{{ .a .b }}", "takes no arguments"),
        ("{{ break }}", "outside"),
        ("{{ range $a, $b, $c := .x }}{{ end }}", "unexpected"),
        ("{{ .a & .b }}", "unexpected"),
        ('{{ "\\q" }}', "unknown escape"),
    ],
)
def test_what_is_no_template_is_refused(text: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        Template(text, FUNCTIONS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ .name.deeper }}", "can't evaluate field deeper"),
        ("{{ $x }}", "undefined variable"),
        ("{{ index .absent 0 }}", "index of untyped nil"),
        ("{{ index .list 9 }}", "out of range"),
        ('{{ template "absent" . }}', "not defined"),
        ("{{ range .name }}{{ end }}", "can't iterate"),
        ("{{ div 1 0 }}", "division by zero"),
        ('{{ fail "no" }}', "no"),
        ("{{ html .name }}", "not supported"),
        ("{{ len 3 }}", "error calling len"),
        ('{{ define "t" }}{{ template "t" . }}{{ end }}{{ template "t" . }}', "without end"),
    ],
)
def test_what_cannot_be_run_is_told(text: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        render(text)


@pytest.mark.parametrize(
    ("form", "values", "text"),
    [
        ("%v %s %d %q %t", (1, "a", 2, "b", True), '1 a 2 "b" true'),
        ("%03d|%5d|%-5d|%+d|%x|%X|%o|%b|%c", (7, 7, 7, 7, 255, 255, 8, 5, 65), "007|    7|7    |+7|ff|FF|10|101|A"),
        ("%5s|%-5s|%.2s", ("a", "a", "abc"), "    a|a    |ab"),
        ("%f %.2f %g %e", (1.5, 1.255, 0.5, 1500.0), "1.500000 1.25 0.5 1.500000e+03"),
        ("%%", (), "%"),
        ("%d", ("a",), "%!d(string=a)"),
        ("%s", (1,), "%!s(int=1)"),
        ("%d", (), "%!d(MISSING)"),
        ("a", (1,), "a%!(EXTRA int=1)"),
        ("%v", (None,), "<nil>"),
    ],
)
def test_printf(form: str, values: tuple[Any, ...], text: str) -> None:
    assert sprintf(form, *values) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.1, "0.1"),
        (1e21, "1e+21"),
        (1e-7, "1e-07"),
        ([None, "a"], "[<nil> a]"),
        ({"a": [1]}, "map[a:[1]]"),
    ],
)
def test_values_are_printed_as_go_does(value: Any, text: str) -> None:
    assert text_of(value) == text
