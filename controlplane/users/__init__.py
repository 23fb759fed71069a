"""Who may do what: accounts, passwords, sessions, roles, and the slowing down of guessers.

Knows neither HTTP nor SQL. Other packages ask ``service.Users`` and get ``service.User`` back.
"""
