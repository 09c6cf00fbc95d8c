"""The linter: finds in orchestrator code, without running it, what would make a replay differ from the run."""

from holdfast.lint.check import check_paths, check_source
from holdfast.lint.findings import RULES, Finding, Rule, Severity

__all__ = ["RULES", "Finding", "Rule", "Severity", "check_paths", "check_source"]
