"""The image's build finds what it needs."""

import re
import unittest

from chart import ROOT

IGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


class Image(unittest.TestCase):
    def test_every_room_of_the_workspace_is_in_the_builds_context(self):
        members = re.search(r"^members = \[(.*)\]$", (ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
        for member in re.findall(r'"([^"]+)"', members):
            self.assertIn(f"!{member.partition('/')[0]}", IGNORE)

    def test_all_programs_are_in_it_and_it_is_not_root(self):
        script = (ROOT / "hack/lib/image-programs.sh").read_text(encoding="utf-8")
        programs = re.search(r"^PROGRAMS=\((.*)\)$", script, re.MULTILINE)[1].split()
        tried = re.search(r"for program in (.*); do", DOCKERFILE)[1].split()
        self.assertEqual(programs, tried)
        manifests = [p.read_text(encoding="utf-8") for p in ROOT.glob("*/Cargo.toml")]
        for program in programs:
            named = any(f'name = "{program}"' in text for text in manifests)
            self.assertTrue(named or list(ROOT.glob(f"*/src/bin/{program}.rs")), program)
        self.assertRegex(DOCKERFILE, r"\nUSER 65532:65532\n")

    def test_it_keeps_to_what_all_builders_know(self):
        self.assertNotRegex(DOCKERFILE, r"<<|--mount=|# syntax|--chmod|--link")
