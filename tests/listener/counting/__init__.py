"""An app of rows that count their own changes, and of receivers that record their calls.

Processes of a site have it installed; the test run has not.
"""
