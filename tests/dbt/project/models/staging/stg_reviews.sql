select id, product, text, note, written_on, received_at
from {{ ref('reviews') }}
where text is not null
