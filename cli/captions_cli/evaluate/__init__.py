"""`captions evaluate`: measure models on labelled media, through the prompts, gateway, checks and policy of uploads.

* `labels` reads a labelled set, `questions` and `running` ask about it, `journal` keeps what was answered and paid.
* `scores`, `cider` and `intervals` judge answers, `summary` adds them up, `tables` and `report` show it.
"""
