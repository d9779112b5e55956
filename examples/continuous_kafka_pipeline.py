from airflow import DAG
from airflow.operators.python import PythonOperator
from airflow.utils.dates import days_ago
#Assume a custom KafkaSensor is defined in 'custom_operators'

from custom_operators import KafkaSensor 

with DAG(
    dag_id='continuous_kafka_pipeline',
    start_date=days_ago(1),
    schedule=None,  # No schedule needed, we trigger manually or via sensor
    catchup=False,
    tags=['continuous','kafka']
) as dag:
    
    wait_for_kafka_message = KafkaSensor(
        task_id='wait_for_new_message',
        topic='my-topic',
        group_id='my-group',
        auto_offset_reset='latest',
        poke_interval=10 #Check for new messages every 10 seconds
    )

    process_message = PythonOperator(
        task_id='process_message_data',
        python_callable=lambda: print("Message Received and Processed")
        # Assume a callable that reads and transforms the message is inserted here
    )

    wait_for_kafka_message >> process_message
