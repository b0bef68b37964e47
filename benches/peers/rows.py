"""What the Python scripts share: how a row of the file becomes properties, and how they tell what they did."""

import json
from datetime import datetime

PLANS = {"Free plan": "free", "Starter": "starter", "Professional": "pro", "Enterprise (annual)": "enterprise"}


def properties(row):
    """The row's cells as HubSpot takes them."""
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


def tell(written, failed):
    """One line of JSON: rows of which HubSpot said that it has them, and the keys of those that are reported as failed."""
    print(json.dumps({"written": written, "failed": failed}))
