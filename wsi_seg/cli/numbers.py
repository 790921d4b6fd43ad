"""Owns parsing options of comma-separated numbers."""

import typer


def numbers(text: str) -> tuple[float, ...]:
    """Parse comma-separated numbers.

    Raises
    ------
    typer.BadParameter
        If a part is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(f"got {text!r}; expected comma-separated numbers") from error


def low_high(text: str) -> tuple[float, float] | None:
    """Parse LOW,HIGH with LOW below HIGH; None if the text is empty.

    Raises
    ------
    typer.BadParameter
        If the text is anything else.
    """
    found = numbers(text)
    if not found:
        return None
    if len(found) != 2 or not found[0] < found[1]:
        raise typer.BadParameter(f"got {text!r}; expected LOW,HIGH with LOW below HIGH")
    return found[0], found[1]
