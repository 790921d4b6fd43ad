"""Owns options that take several numbers in one text."""

import typer


def numbers(text: str) -> tuple[float, ...]:
    """Numbers of a text with commas.

    Raises
    ------
    typer.BadParameter
        If a part is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(f"got {text!r}; expected numbers with commas") from error


def low_high(text: str) -> tuple[float, float] | None:
    """Two numbers of a text with a comma, the first below the second; None if it is empty.

    Raises
    ------
    typer.BadParameter
        If the text holds anything else.
    """
    found = numbers(text)
    if not found:
        return None
    if len(found) != 2 or not found[0] < found[1]:
        raise typer.BadParameter(f"got {text!r}; expected LOW,HIGH with LOW below HIGH")
    return found[0], found[1]
