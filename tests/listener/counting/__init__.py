"""An app of rows that count their own changes, and of receivers that note what they are told.

Processes of a site have it installed; the test run has not.
"""
