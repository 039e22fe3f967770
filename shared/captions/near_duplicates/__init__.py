"""The near-duplicate index and its claims: who pays for a picture, who waits, and who gets a copied caption."""

from captions.near_duplicates.index import Neighbours
from captions.near_duplicates.protocol import Announcement, Claim, Contended, Follow, Hit, Lead, claim_id
from captions.near_duplicates.splits import Splits

__all__ = ["Announcement", "Claim", "Contended", "Follow", "Hit", "Lead", "Neighbours", "Splits", "claim_id"]
