"""The paper's tables: the plan of their runs, the numbers beside the paper's, the results page."""
