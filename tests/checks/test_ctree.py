# SPDX-License-Identifier: LGPL-2.1-or-later
"""The measure itself is measured: python3 -m pytest tests/checks"""

import ctree

SOURCE = r'''
/* { */
#define WRAP(x) \
{ \
}
struct s {
	int a;
};

static const struct s table[] = {
	{1},
};

int plain(void)
{
	return 0;
}

static int __attribute__((unused))
many(int a, int (*f)(int, int), char c, int d,
     int e, int g, int h)
{
	/* if (a) { if (b) { */
	const char *brace = "{{";

	if (a)
		for (int i = 0; i < d; i++) {
			while (f(i, e))
				if (brace)
					g = (struct s){.a = h ? 1 : 2}.a;
		}
	else if (c)
		e = 1;
	else if (d)
		do
			g--;
		while (g);
	return g;
}

int table_like(int x)
{
	switch (x) {
	case 1:
		return 2;
	default:
		goto out;
	}
out:
	return 0;
}
'''


def test_functions():
    found = list(ctree.functions(SOURCE))
    assert [f.name for f in found] == ["plain", "many", "table_like"]
    assert [f.parameters for f in found] == [0, 7, 1]
    assert [f.nesting for f in found] == [0, 4, 1]
    assert [f.lines for f in found] == [1, 16, 8]
    assert [f.cases for f in found] == [0, 0, 2]


def test_parameters():
    assert ctree.parameters("int f(void)") == ("f", [])
    assert ctree.parameters("int f(const struct a *x, void (*done)(void *data, int n), int *ret, struct b **ret_b, "
                            "char name[4], struct diag *diag)") == ("f", ["x", "done", "name"])


def test_line_numbers():
    plain = next(ctree.functions(SOURCE))
    assert SOURCE.split("\n")[plain.line - 1] == "{"


def test_comments_and_literals_are_blank():
    text = ctree.blank('a /* { */ "}" \'{\' // }\n#define X {\nb')
    assert "{" not in text and "}" not in text
    assert text.count("\n") == 2
