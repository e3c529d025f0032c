"""Questions that a source answers in the place of all others: `replaces` of an entry of data.sources."""

from __future__ import annotations

from dataclasses import dataclass, field

from snaketune.config.sections import ValidationConfig
from snaketune.data import sources
from snaketune.data.deduplication import RowKeys, row_keys
from snaketune.data.readers import dispatch
from snaketune.data.readers.raw_row import Rejection
from snaketune.data.records import RecordBuilder


@dataclass
class Replacements:
    """The questions of the sources that replace others', and of their plain texts the texts."""

    prompts: set[int] = field(default_factory=set)
    texts: set[bytes] = field(default_factory=set)

    @classmethod
    def of(cls, config: ValidationConfig) -> Replacements:
        """Read the sources that replace others; rows that cannot be used replace nothing."""
        found = cls()
        for number, source in enumerate(config.sources):
            if not source.replaces:
                continue
            builder = RecordBuilder(source, config)
            for file in sources.data_files(source, f"data.sources[{number}]"):
                for row in dispatch.rows(file.path, file.file_format, source):
                    if type(row.parsed) is Rejection:
                        continue
                    try:
                        found._add(row_keys(builder.record(row.parsed, row.has_no_control_chars)))
                    except Rejection:
                        continue
        return found

    def _add(self, keys: RowKeys) -> None:
        if keys.prompt_hash:
            self.prompts.add(keys.prompt_hash)
        else:
            self.texts.add(keys.key)

    def cover(self, keys: RowKeys) -> bool:
        """Whether a row of another source gives way."""
        return keys.prompt_hash in self.prompts if keys.prompt_hash else keys.key in self.texts
