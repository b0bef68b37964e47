"""What people write today: a CSV into HubSpot contacts with HubSpot's official Python client, 100 rows a call.

    pip install hubspot-api-client
    python import_batching.py FILE BASE_URL TOKEN

Reads with csv.DictReader, converts what HubSpot would refuse as it stands in the file, calls batch upsert, one call after the other. It
does not retry, does not look at single rows' errors, keeps no position. Prints one line of JSON: rows and seconds of CPU.
"""

import csv
import json
import sys
import time
from datetime import datetime

from hubspot import HubSpot
from hubspot.crm.contacts import BatchInputSimplePublicObjectBatchInputUpsert, SimplePublicObjectBatchInputUpsert

BATCH = 100
PLANS = {"Free plan": "free", "Starter": "starter", "Professional": "pro", "Enterprise (annual)": "enterprise"}


def properties(row):
    return {
        "email": row["Email"],
        "firstname": row["First Name"],
        "lastname": row["Last Name"],
        "phone": row["Phone"],
        "annual_spend": row["Annual spend"].replace(",", ""),
        "signed_up": datetime.strptime(row["Signed up"], "%d/%m/%Y").strftime("%Y-%m-%d"),
        "plan": PLANS[row["Plan"]],
        "newsletter": "true" if row["Newsletter"] == "yes" else "false",
    }


def main(path, base_url, token):
    batches = HubSpot(access_token=token).crm.contacts.batch_api
    batches.api_client.configuration.host = base_url
    written = 0

    def send(rows):
        inputs = [
            SimplePublicObjectBatchInputUpsert(id=row["email"], id_property="email", properties=row) for row in rows
        ]
        answer = batches.upsert(BatchInputSimplePublicObjectBatchInputUpsert(inputs=inputs))
        return len(answer.results)

    with open(path, newline="", encoding="utf-8") as file:
        rows = []
        for row in csv.DictReader(file):
            rows.append(properties(row))
            if len(rows) == BATCH:
                written += send(rows)
                rows = []
        if rows:
            written += send(rows)
    print(json.dumps({"rows": written, "cpu_seconds": time.process_time()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
