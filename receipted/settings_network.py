"""Networks as settings give them."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator


def _network(value: Any) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        if isinstance(value, str):
            return ip_network(value)
    except ValueError:
        pass  # one message for everything that is none
    raise ValueError("Input should be a network such as 10.0.0.0/8, with no bits beyond its length") from None


Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network), PlainSerializer(str, return_type=str)]
