"""meltano-tap-hubspot on another address than HubSpot's: it has no setting for one, so its classes are told here. Contacts only.

    pip install meltano-tap-hubspot
    python tap.py BASE_URL TOKEN > messages.jsonl
"""

import sys

from tap_hubspot import client, streams
from tap_hubspot.tap import TapHubspot


class ContactsOnly(TapHubspot):
    def discover_streams(self):
        return [streams.ContactStream(self)]


def main(base_url, token):
    address = property(lambda self: f"{base_url}/crm/v3")
    for kind in (client.PropertyStream, streams.ContactStream):
        kind.url_base = address
    ContactsOnly(config={"access_token": token}).sync_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
