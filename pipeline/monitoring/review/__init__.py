"""Images that deserve a look by a person: which ones, their pictures, the page that shows them."""
