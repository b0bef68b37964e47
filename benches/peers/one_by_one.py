"""A CSV into HubSpot contacts the way the old samples do it: look each row up by its e-mail, then create or update it.

    pip install hubspot-api-client
    python one_by_one.py FILE BASE_URL TOKEN

The same client and the same repeating as in batching.py, though none of the samples has any. A row whose calls fail is reported.
"""

import csv
import sys

from hubspot import HubSpot
from hubspot.crm.contacts import (
    ApiException,
    Filter,
    FilterGroup,
    PublicObjectSearchRequest,
    SimplePublicObjectInput,
    SimplePublicObjectInputForCreate,
)
from rows import properties, tell
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

RETRY = Retry(total=8, backoff_factor=0.5, status_forcelist=(423, 429, 477, 500, 502, 503, 504, 524), allowed_methods=None)


def main(path, base_url, token):
    contacts = HubSpot(access_token=token, retry=RETRY).crm.contacts
    # Each of these properties makes a new client, with HubSpot's own address.
    records, search = contacts.basic_api, contacts.search_api
    for api in (records, search):
        api.api_client.configuration.host = base_url
    written, failed = 0, []
    with open(path, newline="", encoding="utf-8") as file:
        for row in map(properties, csv.DictReader(file)):
            same = Filter(property_name="email", operator="EQ", value=row["email"])
            wanted = PublicObjectSearchRequest(filter_groups=[FilterGroup(filters=[same])], limit=1)
            try:
                found = search.do_search(wanted).results
                if found:
                    records.update(found[0].id, SimplePublicObjectInput(properties=row))
                else:
                    records.create(SimplePublicObjectInputForCreate(properties=row))
                written += 1
            except (ApiException, HTTPError, ValueError):
                failed.append(row["email"])
    tell(written, failed)


if __name__ == "__main__":
    main(*sys.argv[1:])
