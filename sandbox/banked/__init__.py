"""The sandbox's Banked: sessions (v2), payins (v3), refunds, payouts, webhooks."""
