select angry, amr_status, count(*) as reviews
from {{ ref('complaints_incremental') }}
group by all
