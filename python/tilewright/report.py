"""What quantize_ and convert_ did with each layer, as rows and as a table."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One linear layer: outcome is "quantized" or "kept"; note says why, or what is particular."""

    name: str
    outcome: str
    out_features: int
    in_features: int
    scheme: str = ''
    note: str = ''

    @property
    def short_last_group(self):
        """Whether its rows end in a group of fewer columns."""
        return self.outcome == 'quantized' and 'last group' in self.note


@dataclass
class Report:
    """Rows in the order of the model; prints as a table."""

    rows: list = field(default_factory=list)

    @property
    def quantized(self):
        """The rows that were quantized."""
        return [row for row in self.rows if row.outcome == 'quantized']

    @property
    def short_last_group(self):
        """Those of them whose last group is short."""
        return [row for row in self.rows if row.short_last_group]

    @property
    def kept(self):
        """The rows that stayed as they were, each with its reason in `note`."""
        return [row for row in self.rows if row.outcome == 'kept']

    def __str__(self):
        table = [('layer', '[N,K]', 'outcome', 'scheme', 'note')]
        for row in self.rows:
            label = 'short last group' if row.short_last_group else row.outcome
            table.append((row.name, f'[{row.out_features},{row.in_features}]', label,
                          row.scheme, row.note))
        widths = [max(len(line[i]) for line in table) for i in range(5)]
        lines = ['  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
                 for line in table]
        return '\n'.join(lines + [f'{len(self.quantized)} of {len(self.rows)} linear layers '
                                  f'quantized ({len(self.short_last_group)} with a short last '
                                  'group)'])
