"""All contacts of an account into a file of JSON lines with HubSpot's official Python client: the list, page after page.

    pip install hubspot-api-client
    python reading.py OUT BASE_URL TOKEN PROPERTY…

The same repeating as in batching.py. Prints one line of JSON: the records written.
"""

import json
import sys

from hubspot import HubSpot
from urllib3.util.retry import Retry

PAGE = 100
RETRY = Retry(total=8, backoff_factor=0.5, status_forcelist=(423, 429, 477, 500, 502, 503, 504, 524), allowed_methods=None)


def main(out, base_url, token, *properties):
    contacts = HubSpot(access_token=token, retry=RETRY).crm.contacts.basic_api
    contacts.api_client.configuration.host = base_url
    written, after = 0, None
    with open(out, "w", encoding="utf-8") as file:
        while True:
            more = {"after": after} if after else {}
            page = contacts.get_page(limit=PAGE, properties=list(properties), **more)
            for record in page.results:
                file.write(json.dumps({"id": record.id, "properties": record.properties}) + "\n")
                written += 1
            if not (page.paging and page.paging.next):
                break
            after = page.paging.next.after
    print(json.dumps({"written": written}))


if __name__ == "__main__":
    main(*sys.argv[1:])
