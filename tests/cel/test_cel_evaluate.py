"""What expressions give: CEL's own semantics and Kubernetes' libraries, one expression a case."""

from __future__ import annotations

from typing import Any

import pytest

from fastkube import cel
from fastkube.cel import DYN, CostError, Environment, EvalError, declared

SCHEMA = {
    "type": "object",
    "properties": {
        "min": {"type": "integer"},
        "max": {"type": "integer"},
        "ratio": {"type": "number"},
        "name": {"type": "string"},
        "on": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port"],
            "items": {"type": "object", "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}},
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "at": {"type": "string", "format": "date-time"},
        "span": {"type": "string", "format": "duration"},
        "data": {"type": "string", "format": "byte"},
        "either": {"x-kubernetes-int-or-string": True},
        "namespace": {"type": "string"},
        "a-b.c/d": {"type": "string"},
        "absent": {"type": "string"},
    },
}
SELF = {
    "min": 1,
    "max": 2,
    "ratio": 3,
    "name": "abc",
    "on": True,
    "list": [3, 1, 2],
    "set": ["a", "b"],
    "ports": [{"port": 1, "name": "x"}, {"port": 2}],
    "labels": {"k": "v"},
    "at": "2024-02-29T12:30:45.5Z",
    "span": "1h30m",
    "data": "aGk=",
    "either": "50%",
    "namespace": "ns",
    "a-b.c/d": "odd",
}
ENVIRONMENT = Environment({"self": declared(SCHEMA) or DYN, "object": DYN, "authorizer.requestResource": DYN})
BINDINGS = {"self": SELF, "object": {"a": {"b": 1}, "l": [1, 2.0, True], "n": None}, "authorizer.requestResource": "r"}


def evaluate(expression: str, **more: Any) -> Any:
    return cel.compile(expression, ENVIRONMENT).evaluate({**BINDINGS, **more})


@pytest.mark.parametrize(
    "expression",
    [
        # operators
        "self.min <= self.max && self.max > self.min",
        "1 + 2 * 3 == 7 && -7 / 2 == -3 && -7 % 3 == -1 && 7 % -3 == 1",
        "self.ratio / 2.0 == 1.5",
        "1.0 / 0.0 > 1e300",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && [1] + [2] == [1, 2]",
        "1u + 2u == 3u && 7u / 2u == 3u",
        "dyn(1) == 1.0 && dyn(1u) == 1 && dyn(1) < 1.5",
        "dyn(true) != 1 && !(dyn(1) in [true])",
        "[1, 2] == [1, 2] && {'a': [1]} == {'a': [1]} && [1] != [1, 1]",
        "!(true && false) && (false || true) && !!true && !!!false",
        "true ? true : false",
        "0x1F == 31 && 1e3 == 1000.0 && r'\\n' == '\\\\n' && '''it's''' == \"it's\" && '\\u00e9' == 'é'",
        "2 in self.list && 'k' in self.labels && !('x' in self.labels)",
        "self.list[0] == 3 && self.labels['k'] == 'v' && {1: 'a'}[1] == 'a'",
        "'b' > 'a' && true > false && b'b' > b'a'",
        # errors are passed over when the other side decides
        "(1 / 0 == 1) || true",
        "!((1 / 0 == 1) && false)",
        "[0, 1].exists(x, 1 / x == 1)",
        "![0, 2].all(x, 1 / x == 1)",
        # fields
        "has(self.name) && !has(self.absent) && has(self.labels.k) && !has(self.labels.x)",
        "self.__namespace__ == 'ns' && self.a__dash__b__dot__c__slash__d == 'odd'",
        "object.a.b == 1 && has(object.a) && !has(object.z) && object.n == null",
        "authorizer.requestResource == 'r'",
        "type(self.either) == string && self.either.endsWith('%')",
        # formats
        "self.at > timestamp('2024-01-01T00:00:00Z') && self.span == duration('5400s')",
        "self.data == b'hi' && string(self.data) == 'hi'",
        "self.at.getFullYear() == 2024 && self.at.getMonth() == 1 && self.at.getDate() == 29",
        "self.at.getDayOfMonth() == 28 && self.at.getDayOfWeek() == 4 && self.at.getDayOfYear() == 59",
        "self.at.getHours('Europe/Berlin') == 13 && self.at.getHours('-02:00') == 10",
        "self.at.getMinutes() == 30 && self.at.getSeconds() == 45 && self.at.getMilliseconds() == 500",
        "self.span.getHours() == 1 && self.span.getMinutes() == 90 && self.span.getSeconds() == 5400",
        "self.at + self.span == timestamp('2024-02-29T14:00:45.5Z') && self.at - self.at == duration('0')",
        "string(self.span) == '5400s' && string(self.at) == '2024-02-29T12:30:45.5Z'",
        "string(duration('1.5s')) == '1.5s'",
        # conversions
        "int('-5') == -5 && int(2.9) == 2 && int(-2.9) == -2 && uint(3) == 3u && double('1.5') == 1.5",
        "string(1) == '1' && string(1.0) == '1' && string(1e21) == '1e+21' && string(0.00001) == '1e-05'",
        "string(1.5) == '1.5' && string(123456789.0) == '1.23456789e+08'",
        "bool('true') && string(true) == 'true' && bytes('é') == b'\\xc3\\xa9' && int(timestamp(5)) == 5",
        "type(1) == int && type('') == string && type([]) == list && type({}) == map && type(null) == null_type",
        "size('é€') == 2 && size(b'é') == 2 && 'abc'.size() == 3 && size(self.labels) == 1",
        # macros
        "self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x == 3)",
        "self.list.filter(x, x > 1) == [3, 2] && self.list.map(x, x * 2) == [6, 2, 4]",
        "self.list.map(x, x > 1, x * 2) == [6, 4] && self.labels.all(k, k == 'k') && self.labels.map(k, k) == ['k']",
        "[1, 2].all(x, [3, 4].exists(y, y == x + 2))",
        "self.list.all(i, v, v == self.list[i]) && self.labels.exists(k, v, v == 'v') && [5].existsOne(i, v, i == 0)",
        "[1, 2].transformList(i, v, i * v) == [0, 2] && [1, 2].transformList(i, v, v > 1, v) == [2]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && [7].transformMap(i, v, v) == {0: 7}",
        "{'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'}",
        "cel.bind(x, self.min + 1, x * x) == 4",
        # optionals
        "self.?name.orValue('x') == 'abc' && self.?absent.orValue('x') == 'x' && !self.?absent.hasValue()",
        "self.?labels.k.orValue('x') == 'v' && self.?labels.x.orValue('x') == 'x'",
        "self.list[?7].orValue(9) == 9 && self.labels[?'k'].value() == 'v' && self.?list[0].orValue(1) == 3",
        "optional.of(1).optMap(x, x + 1).value() == 2 && !optional.none().optMap(x, 1).hasValue()",
        "optional.of(1).optFlatMap(x, optional.of(x + 1)).value() == 2",
        "optional.none().or(optional.of(2)).value() == 2 && optional.ofNonZeroValue('') == optional.none()",
        "[?optional.none(), ?optional.of(1)] == [1] && {?'a': optional.none(), ?'b': optional.of(1)} == {'b': 1}",
        # strings
        "'hello'.charAt(1) == 'e' && 'hello'.indexOf('l') == 2 && 'hello'.indexOf('l', 3) == 3",
        "'hello'.lastIndexOf('l') == 3 && 'hello'.lastIndexOf('l', 2) == 2 && 'hello'.substring(1, 3) == 'el'",
        "['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab' && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'aXbX'.replace('X', '') == 'ab' && 'aXbX'.replace('X', '', 1) == 'abX' && ' a '.trim() == 'a'",
        "'aÄ'.upperAscii() == 'AÄ' && 'A'.lowerAscii() == 'a' && strings.quote('a\"b') == '\"a\\\\\"b\"'",
        "'%s %d %.2f %x %b %o %X %%'.format(['a', 1, 2.5, 255, 5, 8, 'hi']) == 'a 1 2.50 ff 101 10 6869 %'",
        "'%s'.format([[1, 'a', true, null, {'k': 1.5}]]) == '[1, a, true, null, {k: 1.5}]'",
        "'abc'.matches('^[a-c]+$') && !'abd\\n'.matches('^[a-c]+$') && 'abc'.contains('b') && 'abc'.startsWith('a')",
        "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22']",
        "'a1b2'.findAll('[0-9]', 1) == ['1']",
        # lists and sets
        "!self.list.isSorted() && self.list.sum() == 6 && self.list.min() == 1 && self.list.max() == 3",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [].sum() == 0 && ['a', 'b'].isSorted()",
        "[1, 2, 1].distinct() == [1, 2] && [1, 2, 3].slice(1, 3) == [2, 3] && [3, 1].sort() == [1, 3]",
        "[[1], [2]].flatten() == [1, 2] && [1, 2].reverse() == [2, 1] && lists.range(3) == [0, 1, 2]",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
        "self.set == ['b', 'a'] && self.set + ['a', 'c'] == ['a', 'b', 'c']",
        "self.ports == dyn([{'port': dyn(2)}, {'port': dyn(1), 'name': dyn('x')}])",
        # network
        "url('https://a.b:80/c%20d?e=f&e=g').getPort() == '80' && url('https://a.b/c').getHost() == 'a.b'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('/a').getEscapedPath() == '/a' && !isURL('a b')",
        "url('https://a.b/?e=f&e=g').getQuery() == {'e': ['f', 'g']} && url('http://a.b').getScheme() == 'http'",
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && isIP('1.2.3.4') && !isIP('1.2.3')",
        "ip('10.0.0.1').isGlobalUnicast() && ip('169.254.0.1').isLinkLocalUnicast() && ip('0.0.0.0').isUnspecified()",
        "!ip.isCanonical('::0001') && ip.isCanonical('::1') && string(ip('::0001')) == '::1'",
        "cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))",
        "cidr('10.0.0.1/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.1/8').prefixLength() == 8",
        "cidr('10.0.0.1/8').ip() == ip('10.0.0.1') && isCIDR('::/0') && !isCIDR('1.2.3.4')",
        # amounts
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1k') == quantity('1000') && isQuantity('5m')",
        "quantity('1.5').add(1).asApproximateFloat() == 2.5 && quantity('2').sub(quantity('3')).sign() == -1",
        "quantity('50k').asInteger() == 50000 && !quantity('5m').isInteger()",
        "quantity('1').compareTo(quantity('1')) == 0",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').compareTo(semver('1.0.0')) == -1",
        "semver('v1.0', true) == semver('1.0.0') && !isSemver('v1.0') && semver('1.2.3').minor() == 2",
        "!format.dns1123Label().validate('abc').hasValue() && format.dns1123Label().validate('A_').hasValue()",
        "format.named('uuid').value().validate('x').value() == ['does not match the UUID format']",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
    ],
)
def test_holds(expression: str) -> None:
    assert evaluate(expression) is True


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("self.absent == ''", "no such key: absent"),
        ("self.labels.x == ''", "no such key: x"),
        ("self.list[3] == 1", "index out of bounds: 3"),
        ("1 / 0 == 1", "division by zero"),
        ("1 % 0 == 1", "modulus by zero"),
        ("9223372036854775807 + 1 > 0", "integer overflow"),
        ("object.a + 1 == 2", "no such overload"),
        ("object.a.b.c == 1", "no such key: c"),
        ("self.list.exists(x, 1 / (x - x) == 1)", "division by zero"),
        ("int('x') == 1", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("optional.none().value() == 1", "optional.none() dereference"),
        ("[1].min() == [2].filter(x, false).min()", "min called on empty list"),
        ("quantity(self.name) == quantity('1')", None),
        ("'x'.matches(self.name + '[')", None),
    ],
)
def test_has_no_value(expression: str, told: str | None) -> None:
    with pytest.raises(EvalError) as failed:
        evaluate(expression)
    assert told is None or str(failed.value) == told


def test_an_undefined_variable_is_an_error_not_a_crash() -> None:
    with pytest.raises(EvalError, match="no such attribute"):
        cel.compile("object == 1", ENVIRONMENT).evaluate({})


def test_costly_loops_are_ended() -> None:
    nested = cel.compile("object.all(a, object.all(b, object.all(c, a + b + c >= 0)))", ENVIRONMENT)
    with pytest.raises(CostError):
        nested.evaluate({"object": list(range(200))})
    value, cost = nested.run({"object": list(range(10))}, 1_000_000)
    assert value is True
    assert 1000 < cost < 100_000


def test_long_texts_count() -> None:
    searching = cel.compile("object.all(a, a.contains('x') || true)", ENVIRONMENT)
    with pytest.raises(CostError):
        searching.evaluate({"object": ["y" * 100_000] * 200})


def test_what_is_not_asked_for_is_not_worked_out() -> None:
    asked: list[str] = []

    class Variables(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            asked.append(name)
            self[name] = 5
            return 5

    variables = Variables()
    program = cel.compile("object.a == 5 || object.b == 6", ENVIRONMENT)
    assert program.evaluate({"object": variables}) is True
    assert asked == ["a"]
    assert program.names == {"object"}


def test_authorizer_asks_with_the_attributes_of_a_review() -> None:
    from fastkube.cel.authorizer import Authorizer

    asked: list[dict[str, Any]] = []

    def decide(attributes: dict[str, Any]) -> tuple[bool, str, str]:
        asked.append(attributes)
        return attributes.get("name") == "yes", "because", ""

    environment = Environment({"authorizer": cel.Type("opaque", "kubernetes.authorization.Authorizer")})
    text = (
        "authorizer.group('apps').resource('deployments').subresource('scale').namespace('n').name('yes')"
        ".check('get').allowed() && !authorizer.path('/healthz').check('get').allowed() && "
        "authorizer.serviceAccount('n', 's').group('').resource('pods').check('list').reason() == 'because'"
    )
    assert cel.compile(text, environment).evaluate({"authorizer": Authorizer(decide, {"user": "u"})}) is True
    assert asked == [
        {
            "user": "u",
            "group": "apps",
            "resource": "deployments",
            "subresource": "scale",
            "namespace": "n",
            "name": "yes",
            "verb": "get",
        },
        {"user": "u", "path": "/healthz", "verb": "get"},
        {
            "user": "system:serviceaccount:n:s",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:n"],
            "group": "",
            "resource": "pods",
            "verb": "list",
        },
    ]
