"""Ids in addresses: numbers that a database can hold; longer ones are addresses of nothing. Makes ``<id:…>`` known."""

from django.urls import register_converter
from django.urls.converters import IntConverter

BIGGEST_ID = 2**63 - 1


class IdConverter(IntConverter):
    regex = "[0-9]{1,19}"

    def to_python(self, value: str) -> int:
        if (number := int(value)) > BIGGEST_ID:
            raise ValueError(value)
        return number


register_converter(IdConverter, "id")
