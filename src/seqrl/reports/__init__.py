"""Reports: one page of HTML that tells what a run or a sweep was, learnt and did."""
