"""Names that somebody may write into params.yaml or have in the head of a table."""

NAMES = [
    # paths
    "", ".", "..", "../../docs", "../runs", "../../pipeline/tracking", "../../../outside",
    "/var/outside", "a/b", "a\\b", "~", "~/x", "./a", "a/", "a/../..", "..\\..", "%2e%2e%2fdocs", "file:///etc",
    "C:\\x", "\\\\host\\x",
    # words of a shell
    "a;touch X", "$(touch X)", "`touch X`", "a|touch X", "a>X", "a&touch X", "a\ntouch X\n", "it's", 'a"b',
    "a b", "-x", "--help", "$HOME", "${x}", "*", "?", "[a]", "{a,b}", "#a", "!a", "a\ttouch X",
    "'; touch X; '", "' \n touch X \n'",
    # words of DVC, MLflow and YAML
    "a@b", "a:b", "my.clicks", "ml-1.0", "ctr-a:b", "a,b", "a=b", "%s", "{0}", "a[0]", "a.b.c",
    # writing
    "käufe", "购买", "😀", "a\u202eb", "a\u200bb", "\x00", "\x1b[31m", "a\r", "ﬁ", "é",
    # length
    "a" * 65, "a" * 300, "é" * 130,
]  # fmt: skip
FINE = [
    "a",
    "A",
    "0",
    "no",
    "on",
    "null",
    "con",
    "nul",
    "default",
    "tuned",
    "My_Clicks-2024",
    "a" * 64,
    "1e5",
    "a--b",
]
