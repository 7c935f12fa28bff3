"""An app of the project that makes the receivers of installed packages critical."""
