"""What a caller gives, before anything is asked of a broker."""

import math
import unittest

from gate_client import _client, _paths
from gate_client import _messages as m


class Given(unittest.TestCase):
    def test_an_endless_timeout_is_no_limit(self) -> None:
        for timeout in (None, math.inf):
            deadline = _client._deadline(timeout)
            self.assertEqual(_client._patience(timeout, deadline), m.Endless())

    def test_what_is_no_number_is_no_timeout(self) -> None:
        with self.assertRaisesRegex(ValueError, "number of seconds"):
            _client._deadline(math.nan)

    def test_an_empty_path_is_not_the_working_directory(self) -> None:
        for path in ("", b""):
            with self.assertRaisesRegex(ValueError, "empty"):
                _paths.resolve(path)
        self.assertEqual(_paths.resolve("."), _paths.resolve(_paths.resolve(".")))


if __name__ == "__main__":
    unittest.main()
