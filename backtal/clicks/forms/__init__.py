"""The forms of click files, one module each; `backtal.clicks.FORMS` lists them."""
