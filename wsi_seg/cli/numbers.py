"""Owns options that take several numbers in one text."""

import typer


def numbers(text: str) -> tuple[float, ...]:
    """Numbers of a text with commas.

    Raises
    ------
    typer.BadParameter
        If one is none.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(f"got {text!r}; expected numbers with commas") from error
