"""All figures and tables by name."""

from __future__ import annotations

from seqrl.reproduction import Reproduction
from seqrl.reproduction.ablations import Ablations
from seqrl.reproduction.fig2 import Figure2
from seqrl.reproduction.fig3 import Figure3
from seqrl.reproduction.fig4 import Figure4
from seqrl.reproduction.fig6 import Figure6
from seqrl.reproduction.table1 import Table1
from seqrl.reproduction.table2 import Table2

ALL: dict[str, type[Reproduction]] = {
    each.name: each for each in (Figure2, Figure3, Figure4, Table1, Figure6, Table2, Ablations)
}
